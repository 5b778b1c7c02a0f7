"""Models back into every layout, into stock CLIP, and the command that does it."""

import pytest
import torch
import tyro
from PIL import Image
from rich.console import Console
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    PreTrainedTokenizerFast,
)

from alphaclip_gen import cli
from alphaclip_gen.checkpoints import load_model, load_tower
from alphaclip_gen.conversion import Convert, convert, convert_command
from alphaclip_gen.exporting import FILES, export, state_in, to_stock
from alphaclip_gen.processor import AlphaCLIPImageProcessor
from alphaclip_gen.vision import (
    AlphaCLIPConfig,
    AlphaCLIPModel,
    AlphaCLIPVisionConfig,
    AlphaCLIPVisionModel,
    AlphaCLIPVisionModelWithProjection,
)

VISION = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": 16,
}
TEXT = {
    "vocab_size": 20,
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "max_position_embeddings": 8,
    "bos_token_id": 18,
    "eos_token_id": 19,
    "projection_dim": 16,
}


def trained(kind, config):
    """Random weights of the given class, alpha weights too."""
    torch.manual_seed(0)
    model = kind(config).eval()
    for name, value in model.named_parameters():
        if "alpha" in name:
            torch.nn.init.normal_(value, std=0.05)
    return model


@pytest.fixture
def tower():
    return trained(AlphaCLIPVisionModelWithProjection, AlphaCLIPVisionConfig(**VISION))


@pytest.fixture
def model():
    config = AlphaCLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=16)
    return trained(AlphaCLIPModel, config)


@pytest.fixture
def pixels():
    return inputs(32)


def inputs(side):
    generator = torch.Generator().manual_seed(1)
    color = torch.randn(2, 3, side, side, generator=generator)
    return torch.cat([color, -torch.rand(2, 1, side, side, generator=generator)], 1)


def assert_same_weights(got, expected):
    got, expected = got.state_dict(), expected.state_dict()
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(got[name], value), name


@pytest.mark.parametrize("layout", ["transformers", "alpha-clip", "open_clip"])
def test_towers_come_back_from_every_layout_that_holds_alpha(tower, tmp_path, layout):
    path = export(tower, tmp_path / "out", layout)
    assert_same_weights(load_tower(path), tower)


@pytest.mark.parametrize("layout", ["transformers", "open_clip"])
def test_whole_models_come_back(model, tmp_path, layout):
    assert_same_weights(load_model(export(model, tmp_path / "out", layout)), model)


def test_openai_layout_holds_plain_clips_only(model, tmp_path):
    with pytest.raises(ValueError, match="cannot hold alpha weights"):
        export(model, tmp_path, "openai")
    torch.nn.init.zeros_(model.vision_model.embeddings.patch_embedding_alpha.weight)
    assert_same_weights(load_model(export(model, tmp_path, "openai")), model)
    assert state_in(model, "open_clip")["visual.conv1.weight"].shape[1] == 3


L14 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "projection_dim": 768,
}


@pytest.mark.parity
@pytest.mark.parametrize(
    "vision",
    [pytest.param(VISION, id="tiny"), pytest.param(L14, id="L14", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    ("kind", "stock"),
    [
        (AlphaCLIPVisionModel, CLIPVisionModel),
        (AlphaCLIPVisionModelWithProjection, CLIPVisionModelWithProjection),
    ],
)
def test_stock_clip_equals_attending_everywhere(kind, stock, vision, tmp_path):
    pixels = inputs(vision["image_size"])
    ours = trained(kind, AlphaCLIPVisionConfig(**vision))
    export(ours, tmp_path, fold=True)
    loaded, report = stock.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert (loaded.config.model_type, type(to_stock(ours))) == ("clip_vision_model", stock)
    color = pixels[:, :3]
    with torch.no_grad():
        got, expected, regions = loaded(color)[0], ours(color)[0], ours(pixels)[0]
    figure = ((got - expected).abs().max() / expected.abs().max()).item()
    size = f"{vision['num_hidden_layers']:>2} x {vision['hidden_size']:<4}"
    print(f"\nparity  {f'folded alpha, {stock.__name__}':<46} {size} {figure:.1e}")
    assert figure < 2e-6
    assert (regions - expected).abs().max() > 1e-3  # the alpha weights did matter


def test_stock_clip_with_text(model, pixels, tmp_path):
    export(model, tmp_path, fold=True)
    loaded, report = CLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    tokens = torch.tensor([[3, 4, 19, 0]])
    with torch.no_grad():
        got = loaded(tokens, pixels[:, :3]).logits_per_image
        expected = model(tokens, pixels[:, :3]).logits_per_image
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_zero_alpha_folds_to_the_same_bits(tower):
    torch.nn.init.zeros_(tower.vision_model.embeddings.patch_embedding_alpha.weight)
    stock, ours = to_stock(tower).state_dict(), tower.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in stock.items())


def test_exporting_leaves_the_model_as_it_was(tower):
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    stock = to_stock(tower)
    with torch.no_grad():
        for value in stock.parameters():
            value.zero_()
    assert all(torch.equal(before[name], value) for name, value in tower.state_dict().items())


@pytest.mark.parity
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_open_clip_loads_a_folded_export(pixels, tmp_path, activation):
    open_clip = pytest.importorskip("open_clip")
    vision = {**VISION, "intermediate_size": 500, "hidden_act": activation}
    text = {**TEXT, "hidden_act": activation}
    config = AlphaCLIPConfig(vision_config=vision, text_config=text, projection_dim=16)
    model = trained(AlphaCLIPModel, config)
    export(model, tmp_path, "open_clip", fold=True)
    theirs = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    tokens = torch.tensor([[3, 4, 19, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        pairs = [
            (theirs.encode_image(pixels[:, :3]), model.get_image_features(pixels[:, :3])),
            (theirs.encode_text(tokens), model.get_text_features(tokens)),
        ]
    for got, expected in pairs:
        expected = expected.pooler_output
        figure = ((got - expected).abs().max() / expected.abs().max()).item()
        print(f"\nparity  open_clip.create_model of a folded export, {activation}  {figure:.1e}")
        assert figure < 5e-6
    again = load_model(tmp_path)
    assert again.config.vision_config.hidden_act == activation
    assert again.config.vision_config.intermediate_size == 500


def test_open_clip_takes_alpha_as_a_fourth_channel(tower, pixels, tmp_path):
    """What the exported fourth channel means: it multiplies (alpha - 0.5) / 0.26."""
    open_clip = pytest.importorskip("open_clip")
    state = state_in(tower, "open_clip")
    theirs = open_clip.transformer.VisionTransformer(
        32, 8, 128, 2, 2, 4.0, output_dim=16, act_layer=open_clip.transformer.QuickGELU
    ).eval()
    theirs.conv1 = torch.nn.Conv2d(4, 128, 8, 8, bias=False)
    theirs.load_state_dict({name.removeprefix("visual."): v for name, v in state.items()})
    normalized = torch.cat([pixels[:, :3], (pixels[:, 3:] + 0.5) / 0.26], 1)
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(normalized), tower(pixels).image_embeds, atol=5e-6, rtol=1e-5
        )


def test_convert_writes_a_folder_for_diffusers_and_says_what_it_read(tower, tmp_path):
    published = export(tower, tmp_path / "in", "alpha-clip")
    result = convert(published, tmp_path / "out")
    assert_same_weights(load_tower(tmp_path / "out"), tower)
    processor = AlphaCLIPImageProcessor.from_pretrained(tmp_path / "out")
    assert dict(processor.crop_size) == {"height": 32, "width": 32}
    rows = dict(result.rows)
    assert rows["layout"] == "alpha-clip"
    assert rows["weights"].startswith("41 tensors, 0.4 M numbers, 41 float32")
    assert rows["tower"] == "2 layers, 128 wide, 2 heads, patch 8, 32 px, quick_gelu"
    assert rows["alpha"].startswith("trained, weights up to 0.1")
    assert (rows["projection"], rows["text tower"]) == ("16", "none")


def test_convert_joins_a_tower_with_a_text_tower_and_its_tokenizer(tower, model, tmp_path, caplog):
    published = export(tower, tmp_path / "in", "alpha-clip")
    export(model, tmp_path / "clip")
    convert(published, tmp_path / "wordless", text=tmp_path / "clip")
    assert "clip has no tokenizer, and CLIP's is not installed: none is written" in caplog.text
    words = {f"word{index}": index for index in range(20)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="word0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path / "clip")
    convert(published, tmp_path / "out", text=tmp_path / "clip", dtype=torch.float16)
    joined = load_model(tmp_path / "out", dtype=torch.float16)
    assert torch.equal(joined.visual_projection.weight, tower.visual_projection.weight.half())
    assert torch.equal(joined.text_projection.weight, model.text_projection.weight.half())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids(["word7", "word19"]) == [7, 19]


def test_what_convert_folds_is_stock_clip_with_its_processor(tower, tmp_path):
    published = export(tower, tmp_path / "in", "alpha-clip")
    convert(published, tmp_path / "out", fold=True)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    assert type(processor) is CLIPImageProcessor
    assert dict(processor.crop_size) == {"height": 32, "width": 32}
    stock = CLIPVisionModelWithProjection.from_pretrained(tmp_path / "out")
    pixels = processor(Image.new("RGBA", (40, 30), "red"), return_tensors="pt").pixel_values
    assert stock(pixels).image_embeds.shape == (1, 16)


@pytest.mark.parametrize("changes", [{"hidden_act": "gelu"}, {"num_attention_heads": 4}])
@pytest.mark.parametrize("layout", ["alpha-clip", "openai"])
def test_layouts_of_bare_weights_refuse_what_they_can_not_say(changes, layout, tmp_path):
    """Readers would take them for quick_gelu and heads of 64: silently another model."""
    config = AlphaCLIPVisionConfig(**VISION | {"hidden_act": "quick_gelu"} | changes)
    other = trained(AlphaCLIPVisionModelWithProjection, config)
    with pytest.raises(ValueError, match=r"which can't say that .* Use 'transformers'"):
        export(other, tmp_path / "out", layout)
    assert not (tmp_path / "out").exists()
    export(other, tmp_path / "out")
    assert_same_weights(load_tower(tmp_path / "out"), other)


def test_convert_will_not_write_into_a_full_folder(tower, tmp_path):
    published = export(tower, tmp_path / "in", "alpha-clip")
    with pytest.raises(ValueError, match="is not empty; expected a new or an empty folder"):
        convert(published, tmp_path / "in")
    assert [path.name for path in (tmp_path / "in").iterdir()] == [FILES["alpha-clip"]]


def test_the_program_has_the_command(tower, tmp_path, capsys):
    published = export(tower, tmp_path / "in", "alpha-clip")
    cli.main(["convert", str(published), "--to", str(tmp_path / "out")])
    assert "2 layers, 128 wide" in capsys.readouterr().out
    assert_same_weights(load_tower(tmp_path / "out"), tower)


def test_the_command_prints_the_table(tower, tmp_path):
    published = export(tower, tmp_path / "in", "alpha-clip")
    arguments = [str(published), "--to", str(tmp_path / "out"), "--layout", "openai", "--fold"]
    console = Console(width=200, record=True, quiet=False, file=(tmp_path / "log").open("w"))
    result = convert_command(tyro.cli(Convert, args=arguments), console)
    console.file.close()
    assert result.path == tmp_path / "out" / "clip.pt"
    told = (tmp_path / "log").read_text()
    for part in ("alpha-clip", "2 layers, 128 wide", "folded into the position embedding"):
        assert part in told
    assert load_tower(result.path).config.hidden_act == "quick_gelu"
