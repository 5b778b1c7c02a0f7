"""Towers and whole models of checkpoints, against independent implementations of each layout.

The parity figures: pytest -m parity -s tests/test_checkpoints.py (tiny), with -m "" for L/14 too.
"""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipImageProcessor,
)

from alphaclip_gen.checkpoints import load_model, load_processor, load_tower
from alphaclip_gen.encoder import RegionEncoder
from alphaclip_gen.mini.model import new_tokenizer
from alphaclip_gen.vision import AlphaCLIPModel, AlphaCLIPVisionModel

HERE = Path(__file__).resolve().parent
towers = SimpleNamespace(**runpy.run_path(str(HERE / "tiny_towers.py")))
SIZES = [
    pytest.param(towers.TINY, id="tiny"),
    pytest.param(towers.L14, id="L14", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    return towers.PublishedTower(**towers.TINY).eval()


@pytest.fixture
def pth(reference, tmp_path):
    torch.save(reference.state_dict(), tmp_path / "alpha.pth")
    return tmp_path / "alpha.pth"


def report(what, size, figure):
    print(f"\nparity  {what:<46} {size['layers']:>2} x {size['width']:<4} {figure:.1e}")


# Parity with independent implementations


@pytest.mark.parity
@pytest.mark.parametrize("size", SIZES)
def test_published_layout_equals_a_written_out_reference(size, tmp_path):
    torch.manual_seed(0)
    model = towers.PublishedTower(**size).eval()
    torch.save(model.state_dict(), tmp_path / "alpha.pth")
    image, alpha = towers.inputs(size["side"])
    with torch.no_grad():
        expected = model(image, alpha)
    figure = towers.difference(load_tower(tmp_path / "alpha.pth"), image, alpha, expected)
    report("Alpha-CLIP .pth / written-out reference", size, figure)
    assert figure < 5e-6


@pytest.mark.parity
@pytest.mark.parametrize("size", SIZES)
def test_transformers_folder_equals_transformers(size, tmp_path):
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=size["width"],
        intermediate_size=4 * size["width"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["width"] // 64,
        patch_size=size["patch"],
        image_size=size["side"],
        projection_dim=size["projection"],
    )
    base = CLIPVisionModelWithProjection(config).eval()
    base.save_pretrained(tmp_path)
    image, alpha = towers.inputs(size["side"])
    with torch.no_grad():
        expected = base(image).image_embeds
    figure = towers.difference(load_tower(tmp_path), image, alpha, expected)
    report("transformers CLIP / Alpha-CLIP of it", size, figure)
    assert figure == 0


@pytest.mark.parity
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("quick_gelu", [True, False])
def test_open_clip_file_equals_open_clip(size, quick_gelu, tmp_path, monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    like_big_g = {} if quick_gelu else {"head_width": 32, "mlp_ratio": 4.9231}
    name, config = towers.named_config(open_clip, monkeypatch, size, quick_gelu, **like_big_g)
    torch.manual_seed(0)
    base = open_clip.model.CLIP(**config).eval()
    torch.save({"state_dict": base.state_dict(), "epoch": 3}, tmp_path / "epoch_3.pt")
    model = load_model(name, tmp_path / "epoch_3.pt")
    image, alpha = towers.inputs(size["side"])
    words = torch.randint(1, 40, (3, 12))
    words[:, 7] = 63  # the last word of the vocabulary ends a text
    with torch.no_grad():
        figures = [
            towers.difference_of(
                model.get_image_features(pixels).pooler_output, base.encode_image(image)
            )
            for pixels in (image, torch.cat([image, alpha - 1], 1))
        ]
        text = model.get_text_features(words).pooler_output
        figures.append(towers.difference_of(text, base.encode_text(words)))
    report(f"open_clip, {'quick_gelu' if quick_gelu else 'gelu'} / vision", size, max(figures[:2]))
    report("open_clip / text", size, figures[2])
    assert max(figures) < 5e-6
    assert torch.equal(model.logit_scale, base.logit_scale)


# Towers and whole models


def test_whole_clip_gives_the_tower_and_the_model(tmp_path):
    base = towers.whole_clip()
    base.save_pretrained(tmp_path, max_shard_size="40KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    model, tower = load_model(tmp_path), load_tower(tmp_path / ".." / tmp_path.name)
    assert isinstance(model, AlphaCLIPModel)
    tokens = torch.tensor([[3, 4, 19, 0]])
    image, alpha = towers.inputs(32)
    four = torch.cat([image, alpha - 1], 1)
    with torch.no_grad():
        expected = base(tokens, image).logits_per_image
        assert torch.equal(model(tokens, four).logits_per_image, expected)
        pooled = base.get_image_features(image).pooler_output
        assert torch.equal(tower(four).image_embeds, pooled)


def test_projection_can_be_demanded_or_dropped(tmp_path):
    towers.whole_clip().save_pretrained(tmp_path / "clip")
    bare = load_tower(tmp_path / "clip", projection=False)
    assert type(bare) is AlphaCLIPVisionModel
    bare.save_pretrained(tmp_path / "bare")
    assert type(load_tower(tmp_path / "bare")) is AlphaCLIPVisionModel
    with pytest.raises(ValueError, match=r"no visual_projection\.weight.*projection=False"):
        load_tower(tmp_path / "bare", projection=True)
    with pytest.raises(ValueError, match="shares no space with texts"):
        load_model(tmp_path / "bare", text=tmp_path / "clip")


def test_text_side_from_the_clip_that_was_tuned(pth, tmp_path, reference):
    towers.whole_clip().save_pretrained(tmp_path / "clip")
    with pytest.raises(ValueError, match=r"alpha\.pth has no text tower.*Pass text="):
        load_model(pth)
    model = load_model(pth, text=tmp_path / "clip")
    tokens = torch.tensor([[3, 4, 19, 0]])
    image, alpha = towers.inputs(32)
    with torch.no_grad():
        text = towers.whole_clip().get_text_features(tokens).pooler_output
        assert torch.equal(model.get_text_features(tokens).pooler_output, text)
        pooled = model.get_image_features(torch.cat([image, alpha - 1], 1)).pooler_output
        assert towers.difference_of(pooled, reference(image, alpha)) < 5e-6


def test_text_of_another_clip_is_refused(pth, tmp_path):
    parts = {"vision_config": towers.TRANSFORMERS, "text_config": towers.WORDS}
    CLIPModel(CLIPConfig(**parts, projection_dim=24)).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"has 24 channels, .*alpha\.pth has 16"):
        load_model(pth, text=tmp_path / "other")


# Image processors


def saved_clip(folder, **settings):
    """A CLIP's folder with a preprocessor_config.json of these settings."""
    towers.whole_clip().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def test_a_folder_that_resizes_to_an_exact_size_as_siglips_do(tmp_path):
    """Bit for bit, with their normalization: nothing is cropped."""
    siglip = SiglipImageProcessor(size={"height": 32, "width": 32})
    folder = saved_clip(tmp_path, **siglip.to_dict())
    pixels = torch.randint(0, 256, (3, 40, 70), generator=torch.Generator().manual_seed(0))
    image = pixels.byte().numpy()
    expected = siglip(image, return_tensors="pt").pixel_values
    assert torch.equal(load_processor(folder)(image, return_tensors="pt").pixel_values, expected)
    encoder = RegionEncoder(load_model(folder), new_tokenizer(), load_processor(folder))
    assert encoder.geometry == "squash"


def test_a_folder_of_a_clip_with_its_own_normalization(tmp_path):
    """As old files say it: sizes are plain numbers."""
    old = {"size": 32, "crop_size": 32, "do_center_crop": True, "image_mean": [0.1, 0.2, 0.3]}
    processor = load_processor(saved_clip(tmp_path, **old))
    assert list(processor.image_mean) == [0.1, 0.2, 0.3]
    assert (processor.size.shortest_edge, processor.crop_size.height) == (32, 32)
    assert load_processor("mini").crop_size.height == 64


# Bad input


def broken(state, how):
    state = dict(state)
    if how == "missing":
        del state["transformer.resblocks.1.attn.in_proj.bias"]
    elif how == "no alpha":
        del state["conv1_alpha.weight"]
    elif how == "unexpected":
        state["transformer.resblocks.0.adapter.weight"] = torch.ones(1)
    elif how == "misshapen":
        state["transformer.resblocks.1.ln_1.bias"] = torch.ones(7)
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"missing: transformer\.resblocks\.1\.attn\.in_proj\.bias\."),
        ("no alpha", r"missing: conv1_alpha\.weight\."),
        ("unexpected", r"unexpected: .*resblocks\.0\.adapter\.weight\."),
        ("misshapen", r"of another size: .*1\.ln_1\.bias \(\(7,\) instead of \(128,\)\)"),
    ],
)
def test_weights_that_do_not_match_are_refused_by_name(reference, tmp_path, how, message):
    torch.save(broken(reference.state_dict(), how), tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=rf"bad\.pth does not hold exactly.*{message}"):
        load_tower(tmp_path / "bad.pth")


@pytest.mark.parametrize("part", [0.1, 0.9])
def test_cut_off_files_are_refused(pth, tmp_path, part):
    whole = pth.read_bytes()
    pth.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match=r"alpha\.pth' is damaged, cut off .*download it again"):
        load_tower(pth)


def test_folders_with_the_wrong_weights_are_refused(tmp_path):
    towers.whole_clip().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"missing: vision_model\.encoder\.layers\.2.* and 8 more"):
        load_tower(tmp_path)
    config["vision_config"].update(num_hidden_layers=2, hidden_size=64)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="of another size: "):
        load_tower(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(ValueError, match="model_type 'siglip'; expected one of clip, "):
        load_tower(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json' is damaged or no JSON"):
        load_tower(tmp_path)


def test_an_alpha_clip_without_its_alpha_is_refused(pth, tmp_path):
    tower = load_tower(pth)
    tower.save_pretrained(tmp_path / "ours")
    state = {k: v for k, v in tower.state_dict().items() if "alpha" not in k}
    (tmp_path / "ours" / "model.safetensors").unlink()
    torch.save(state, tmp_path / "ours" / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"Alpha-CLIP by its config\.json, but .*_alpha"):
        load_tower(tmp_path / "ours")
