"""The evaluation of mini: every way to point at a region, by encoders whose answers are known."""

import math

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from tiny_cast import tiny_cast

from alphaclip_gen.encoder import RegionEncoder
from alphaclip_gen.mini import evaluate
from alphaclip_gen.mini.captions import all_captions as solid_captions
from alphaclip_gen.mini.concepts import SOLID_CAPTIONS, all_captions
from alphaclip_gen.mini.emoji_world import Mix, render_world
from alphaclip_gen.mini.evaluate import EvaluateMini, emoji_markdown, evaluate_mini, region_accuracy
from alphaclip_gen.mini.evaluate_regions import (
    box_of,
    graded,
    point_of,
    read_cast,
    region_figures,
    rising,
    stroke_of,
    training_free,
    two_regions,
    ways_to_see,
)
from alphaclip_gen.mini.model import new_model, new_tokenizer

SHADES = [(20 * row + 10) / 255 for row in range(12)]
"""Of tiny_cast's emoji, and so of their captions."""


class Perfect(RegionEncoder):
    """An encoder that reads the mean shade of a region; texts lie where their shades are."""

    def __init__(self):
        pass

    def embed(self, image, alpha, geometry=None):
        weight = alpha / alpha.sum((2, 3), keepdim=True).clamp(min=1e-6)
        return self.place((image.mean(1, keepdim=True) * weight).sum((1, 2, 3)))

    def embed_texts(self, texts):
        shades = torch.full((len(texts),), 5.0)
        shades[SOLID_CAPTIONS : SOLID_CAPTIONS + 12] = torch.tensor(SHADES)
        return self.place(shades)

    def place(self, shade):
        """Shades on an arc: nearer ones are more similar."""
        angle = shade * math.pi / 2
        return torch.stack([angle.cos(), angle.sin()], dim=1)


@pytest.fixture(scope="module")
def scenes():
    mix = Mix(objects=(3, 3), styles=("plain",), solids=0.0, looks=0.0, rough=0.0)
    return render_world(tiny_cast(), 24, torch.Generator().manual_seed(0), mix)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    tokenizer = new_tokenizer()
    model = new_model(tokenizer)
    torch.nn.init.normal_(model.vision_model.embeddings.patch_embedding_alpha.weight, std=0.1)
    return RegionEncoder(model, tokenizer)


def test_accuracy_needs_the_region(scenes):
    """A reader of shades is nearly always right with the alpha, and lost with all ones."""
    rates = region_accuracy(Perfect(), scenes)
    assert rates["captions"] == len(all_captions())
    assert rates["questions"] == int(scenes.present.sum())
    assert rates["alpha"]["top1"] > 0.8 > 0.4 > rates["ones"]["top1"]
    assert "shape" not in rates["alpha"]


def test_solids_are_told_by_shape_and_color(encoder):
    """With the solids' captions alone the table is that of the first edition."""
    mix = Mix(objects=(2, 3), styles=("plain",), solids=1.0, looks=0.0, rough=0.0)
    scenes = render_world(tiny_cast(), 4, torch.Generator().manual_seed(0), mix)
    rates = region_accuracy(encoder, scenes, solid_captions())
    assert rates["captions"] == 144 and {"top1", "shape", "color"} <= rates["alpha"].keys()


def test_rates_of_guesses_by_hand():
    """Captions 0 "a red sphere", 1 "a green sphere", 12 "a red cube"; 144 is no solid."""
    truth, guess = torch.tensor([0, 0, 0, 0]), torch.tensor([0, 1, 12, SOLID_CAPTIONS])
    rates = evaluate._rates(guess, truth)
    assert (rates["top1"], rates["shape"], rates["color"]) == (0.25, 0.5, 0.5)


def test_ways_of_an_untrained_encoder_differ_where_they_should(encoder, scenes):
    ways = ways_to_see(encoder)
    assert list(ways)[:2] == ["alpha", "all-one alpha"] and len(ways) == 7
    image, alpha = scenes.image[:2], scenes.visible[:2, :1]
    whole = torch.ones_like(alpha)
    plain = ways["all-one alpha"](image, alpha)
    for name, see in ways.items():
        seen = see(image, alpha)
        torch.testing.assert_close(seen.norm(dim=1), torch.ones(2))
        torch.testing.assert_close(see(image, whole), plain, atol=1e-4, rtol=1e-3)
        assert (name == "all-one alpha") == torch.allclose(seen, plain, atol=1e-5)


def test_training_free_focus_knows_alpha_weights_by_their_sum_alone(encoder, scenes):
    """That is what alpha one everywhere adds to each patch; mirrored weights have the same."""
    image, alpha = scenes.image[:2], scenes.visible[:2, :1]
    weight = encoder.model.vision_model.embeddings.patch_embedding_alpha.weight
    free, heeding = training_free(encoder)(image, alpha), encoder.embed(image, alpha)
    kept = weight.clone()
    with torch.no_grad():
        weight.copy_(kept.flip(-1))
    mirrored, heeded = training_free(encoder)(image, alpha), encoder.embed(image, alpha)
    with torch.no_grad():
        weight.copy_(kept)
    torch.testing.assert_close(mirrored, free, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(heeded, heeding, atol=1e-4)


def square(top, left, bottom, right):
    mask = torch.zeros(64, 64)
    mask[top:bottom, left:right] = 1
    return mask


def test_doors_by_hand():
    mask = square(10, 20, 30, 60)
    box = box_of(mask)
    assert torch.equal(box[0, 0], mask)
    point = point_of(mask)
    peak = int(point.flatten().argmax())
    assert mask.flatten()[peak] == 1 and 60 < point.sum() < 200
    stroke = stroke_of(mask)[0, 0]
    rows, columns = (stroke > 0.5).nonzero().T
    assert rows.min() >= 17 and rows.max() <= 22  # through the middle, along the longer side
    assert columns.max() - columns.min() > 20


def test_rising_by_hand():
    values = torch.tensor([[0.0, 1, 2], [0.0, 2, 1]])
    assert rising(values) == {"steps_rising": 0.75, "ends_rising": 1.0}


def test_graded_alpha_shifts_from_one_subject_to_another(scenes):
    text = Perfect().embed_texts(all_captions())
    assert graded(Perfect(), scenes, text)["shift"]["steps_rising"] > 0.9


class Union(Perfect):
    """Sees every shade of a region at once: each patch of the arc that it covers counts."""

    def embed(self, image, alpha, geometry=None):
        shade = (image.mean(1, keepdim=True) * 12.75 - 0.5).round().clamp(0, 11).long()
        found = F.one_hot(shade[:, 0], 12).float() * alpha[:, 0, ..., None]
        return F.normalize(found.sum((1, 2)).sqrt(), dim=1)

    def embed_texts(self, texts):
        places = torch.zeros(len(texts), 12)
        places[SOLID_CAPTIONS : SOLID_CAPTIONS + 12] = torch.eye(12)
        return places


def test_two_regions_score_both(scenes):
    text = Union().embed_texts(all_captions())
    both = two_regions(Union(), scenes, text)
    assert both["in scene"]["rate"] > 0.9 and both["of all"]["rate"] > 0.9

    class First(Union):
        def embed(self, image, alpha, geometry=None):
            return torch.eye(12)[:1].expand(len(image), -1)

    assert two_regions(First(), scenes, text)["in scene"]["rate"] == 0


def test_missing_artwork_is_said_clearly(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no artwork.safetensors in .* python -m .*mini.artwork"
    ):
        read_cast(tmp_path)


def test_the_command_goes_on_without_emoji(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(RegionEncoder, "from_pretrained", lambda *_: encoder)
    bank = tiny_cast().bank
    monkeypatch.setattr(evaluate, "build_bank", lambda *_, **__: bank)
    console = Console(record=True, width=200)
    config = EvaluateMini(scenes=4, lines=1, artwork=tmp_path, output=tmp_path / "out")
    result = evaluate_mini(config, console)
    assert "emoji" not in result
    assert "Emoji are left out" in console.export_text()
    assert "top-1" in (tmp_path / "out" / "mini.md").read_text()


def test_the_table_of_emoji_has_every_row(encoder, scenes):
    figures = region_figures(encoder, scenes)
    page = emoji_markdown({"training styles": figures, "held-out style": figures})
    for name in (*ways_to_see(encoder), "box", "point", "stroke", "two regions", "steps that rise"):
        assert name in page
    assert f"among {len(all_captions())} captions" in page
