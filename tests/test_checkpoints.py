"""Towers from every kind of checkpoint, against independent implementations of each layout.

The parity figures: pytest -m parity -s tests/test_checkpoints.py (tiny), with -m "" for L/14 too.
"""

import json
from collections import OrderedDict

import pytest
import torch
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from alphaclip_gen.checkpoints import load_model, load_processor, load_tower
from alphaclip_gen.published import PUBLISHED, published
from alphaclip_gen.vision import (
    AlphaCLIPModel,
    AlphaCLIPVisionConfig,
    AlphaCLIPVisionModel,
    AlphaCLIPVisionModelWithProjection,
)

TINY = {"width": 128, "layers": 2, "patch": 8, "side": 32, "projection": 16}
L14 = {"width": 1024, "layers": 24, "patch": 14, "side": 224, "projection": 768}
SIZES = [
    pytest.param(TINY, id="tiny"),
    pytest.param(L14, id="L14", marks=pytest.mark.slow),
]


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Written out: fused projection, heads of 64, softmax."""

    def __init__(self, width):
        super().__init__()
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        parts = self.in_proj(x).reshape(batch, tokens, 3, width // 64, 64).permute(2, 0, 3, 1, 4)
        query, key, value = parts
        weights = (query @ key.transpose(-1, -2) / 8).softmax(-1)
        return self.out_proj((weights @ value).transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attn, self.ln_1, self.ln_2 = Attention(width), nn.LayerNorm(width), nn.LayerNorm(width)
        layers = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", QuickGELU())]
        self.mlp = nn.Sequential(OrderedDict([*layers, ("c_proj", nn.Linear(4 * width, width))]))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class PublishedTower(nn.Module):
    """The layout of SunzeY/AlphaCLIP's files and their meaning, from its description."""

    def __init__(self, width, layers, patch, side, projection):
        super().__init__()
        tokens = (side // patch) ** 2 + 1
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.conv1_alpha = nn.Conv2d(1, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(0.05 * torch.randn(width))
        self.positional_embedding = nn.Parameter(0.05 * torch.randn(tokens, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(*(Block(width) for _ in range(layers)))
        self.proj = nn.Parameter(width**-0.5 * torch.randn(width, projection))

    def forward(self, image, alpha):
        x = self.conv1(image) + self.conv1_alpha((alpha - 0.5) / 0.26)
        x = x.flatten(2).permute(0, 2, 1)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1)
        x = self.transformer.resblocks(self.ln_pre(x + self.positional_embedding))
        return self.ln_post(x[:, 0]) @ self.proj


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    return PublishedTower(**TINY).eval()


@pytest.fixture
def pth(reference, tmp_path):
    torch.save(reference.state_dict(), tmp_path / "alpha.pth")
    return tmp_path / "alpha.pth"


def inputs(side):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(2, 3, side, side, generator=generator),
        torch.rand(2, 1, side, side, generator=generator),
    )


@torch.no_grad()
def difference(tower, image, alpha, expected):
    """Largest deviation, relative to the largest value."""
    got = tower(torch.cat([image, alpha - 1], 1)).image_embeds
    return ((got - expected).abs().max() / expected.abs().max()).item()


def openai_state(reference):
    """The same tower without alpha, as OpenAI names it inside a whole CLIP."""
    renamed = {
        name.replace("attn.in_proj.", "attn.in_proj_"): value
        for name, value in reference.state_dict().items()
        if "alpha" not in name
    }
    return {f"visual.{name}": value for name, value in renamed.items()}


def report(what, size, figure):
    print(f"\nparity  {what:<46} {size['layers']:>2} x {size['width']:<4} {figure:.1e}")


# Parity with independent implementations


@pytest.mark.parity
@pytest.mark.parametrize("size", SIZES)
def test_published_layout_equals_a_written_out_reference(size, tmp_path):
    torch.manual_seed(0)
    model = PublishedTower(**size).eval()
    torch.save(model.state_dict(), tmp_path / "alpha.pth")
    image, alpha = inputs(size["side"])
    with torch.no_grad():
        expected = model(image, alpha)
    figure = difference(load_tower(tmp_path / "alpha.pth"), image, alpha, expected)
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
    image, alpha = inputs(size["side"])
    with torch.no_grad():
        expected = base(image).image_embeds
    figure = difference(load_tower(tmp_path), image, alpha, expected)
    report("transformers CLIP / Alpha-CLIP of it", size, figure)
    assert figure == 0


@pytest.mark.parity
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("quick_gelu", [True, False])
def test_open_clip_file_equals_open_clip(size, quick_gelu, tmp_path, monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    like_big_g = {} if quick_gelu else {"head_width": 32, "mlp_ratio": 4.9231}
    name, config = named_config(open_clip, monkeypatch, size, quick_gelu, **like_big_g)
    torch.manual_seed(0)
    base = open_clip.model.CLIP(**config).eval()
    torch.save({"state_dict": base.state_dict(), "epoch": 3}, tmp_path / "epoch_3.pt")
    model = load_model(name, tmp_path / "epoch_3.pt")
    image, alpha = inputs(size["side"])
    words = torch.randint(1, 40, (3, 12))
    words[:, 7] = 63  # the last word of the vocabulary ends a text
    with torch.no_grad():
        figures = [
            difference_of(model.get_image_features(pixels).pooler_output, base.encode_image(image))
            for pixels in (image, torch.cat([image, alpha - 1], 1))
        ]
        text = model.get_text_features(words).pooler_output
        figures.append(difference_of(text, base.encode_text(words)))
    report(f"open_clip, {'quick_gelu' if quick_gelu else 'gelu'} / vision", size, max(figures[:2]))
    report("open_clip / text", size, figures[2])
    assert max(figures) < 5e-6
    assert torch.equal(model.logit_scale, base.logit_scale)


def difference_of(got, expected):
    return ((got - expected).abs().max() / expected.abs().max()).item()


def named_config(open_clip, monkeypatch, size, quick_gelu=False, **vision):
    """A model config that open_clip knows by name for the time of a test."""
    config = {
        "embed_dim": size["projection"],
        "quick_gelu": quick_gelu,
        "vision_cfg": {
            "image_size": size["side"],
            "layers": size["layers"],
            "width": size["width"],
            "patch_size": size["patch"],
            **vision,
        },
        "text_cfg": {"context_length": 12, "vocab_size": 64, "width": 64, "heads": 2, "layers": 2},
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-test", config)
    return "ViT-test", config


# Kinds of files and folders


def test_several_gpu_prefixes_and_half_precision(reference, tmp_path):
    state = {f"module.{name}": value.half() for name, value in reference.state_dict().items()}
    torch.save(state, tmp_path / "mine.pth")
    image, alpha = inputs(32)
    tower = load_tower(tmp_path / "mine.pth")
    assert tower.dtype == torch.float32
    with torch.no_grad():
        assert difference(tower, image, alpha, reference(image, alpha)) < 5e-3
    assert load_tower(tmp_path / "mine.pth", dtype=torch.float16).dtype == torch.float16


def nested(state):
    """A module tree whose state dict is `state`."""
    root = nn.Module()
    for name, value in state.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        if value.is_floating_point():
            module.register_parameter(last, nn.Parameter(value))
        else:
            module.register_buffer(last, value)
    return root


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_openai_archives_and_state_dicts(reference, tmp_path, caplog):
    state = openai_state(reference)
    markers = dict.fromkeys(("input_resolution", "context_length", "vocab_size"), torch.tensor(32))
    torch.jit.save(torch.jit.script(nested(state | markers)), tmp_path / "ViT.pt")
    torch.save(state, tmp_path / "state.pt")
    archive = load_tower(tmp_path / "ViT.pt")
    assert not caplog.records  # an archive says that it is OpenAI's
    saved = load_tower(tmp_path / "state.pt")
    assert "taken as OpenAI's, with quick_gelu" in caplog.text
    assert archive.config.hidden_act == "quick_gelu"
    image, alpha = inputs(32)
    with torch.no_grad():
        base = PublishedTower(**TINY).eval()
        base.load_state_dict(
            {**reference.state_dict(), "conv1_alpha.weight": torch.zeros(128, 1, 8, 8)}
        )
        expected = base(image, alpha)
    assert difference(archive, image, alpha, expected) < 5e-6
    assert not archive.vision_model.embeddings.patch_embedding_alpha.weight.any()
    for name, value in archive.state_dict().items():
        assert torch.equal(value, saved.state_dict()[name]), name


TRANSFORMERS = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "hidden_act": "gelu",
}
WORDS = {
    "vocab_size": 20,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 8,
    "eos_token_id": 2,
}


def whole_clip():
    torch.manual_seed(0)
    parts = {"vision_config": TRANSFORMERS, "text_config": WORDS}
    return CLIPModel(CLIPConfig(**parts, projection_dim=16)).eval()


def save_as_transformers_4(model, folder, kind):
    """The prefixes of transformers 4, position_ids and a pickle, as before safetensors."""
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    state = model.state_dict()
    if kind is CLIPVisionModel:
        state = {f"vision_model.{name}": value for name, value in state.items()}
    state["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    torch.save(state, folder / "pytorch_model.bin")


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("kind", [CLIPVisionModel, CLIPVisionModelWithProjection])
def test_transformers_towers_of_both_versions(tmp_path, version, kind):
    torch.manual_seed(0)
    base = kind(CLIPVisionConfig(**TRANSFORMERS, projection_dim=16)).eval()
    if version == 4:
        save_as_transformers_4(base, tmp_path, kind)
    else:
        base.save_pretrained(tmp_path)
    tower = load_tower(tmp_path)
    with_projection = kind is CLIPVisionModelWithProjection
    assert isinstance(tower, AlphaCLIPVisionModelWithProjection) == with_projection
    assert not tower.training and tower.config.num_attention_heads == 4
    image, alpha = inputs(32)
    with torch.no_grad():
        for pixels in (image, torch.cat([image, alpha - 1], 1)):
            for expected, got in zip(base(image)[:2], tower(pixels)[:2], strict=True):
                assert torch.equal(expected, got)


def test_whole_clip_gives_the_tower_and_the_model(tmp_path):
    base = whole_clip()
    base.save_pretrained(tmp_path, max_shard_size="40KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    model, tower = load_model(tmp_path), load_tower(tmp_path / ".." / tmp_path.name)
    assert isinstance(model, AlphaCLIPModel)
    tokens = torch.tensor([[3, 4, 19, 0]])
    image, alpha = inputs(32)
    four = torch.cat([image, alpha - 1], 1)
    with torch.no_grad():
        expected = base(tokens, image).logits_per_image
        assert torch.equal(model(tokens, four).logits_per_image, expected)
        pooled = base.get_image_features(image).pooler_output
        assert torch.equal(tower(four).image_embeds, pooled)


def test_projection_can_be_demanded_or_dropped(tmp_path):
    whole_clip().save_pretrained(tmp_path / "clip")
    bare = load_tower(tmp_path / "clip", projection=False)
    assert type(bare) is AlphaCLIPVisionModel
    bare.save_pretrained(tmp_path / "bare")
    assert type(load_tower(tmp_path / "bare")) is AlphaCLIPVisionModel
    with pytest.raises(ValueError, match=r"no visual_projection\.weight.*projection=False"):
        load_tower(tmp_path / "bare", projection=True)
    with pytest.raises(ValueError, match="shares no space with texts"):
        load_model(tmp_path / "bare", text=tmp_path / "clip")


def test_the_configuration_beside_a_file_is_heeded(tmp_path, caplog):
    whole_clip().save_pretrained(tmp_path)
    assert load_tower(tmp_path / "model.safetensors").config.hidden_act == "gelu"
    assert not caplog.records


def test_our_own_folders_keep_trained_alpha(pth, tmp_path, reference):
    tower = load_tower(pth)
    tower.save_pretrained(tmp_path / "ours")
    again = load_tower(tmp_path / "ours")
    image, alpha = inputs(32)
    with torch.no_grad():
        assert difference(again, image, alpha, reference(image, alpha)) < 5e-6
    for name, value in tower.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_subfolder_of_a_pipeline(tmp_path):
    whole_clip().save_pretrained(tmp_path / "image_encoder")
    assert load_tower(tmp_path, subfolder="image_encoder").config.image_size == 32
    with pytest.raises(ValueError, match="subfolder='image_encoder'"):
        load_tower(tmp_path)


def test_text_side_from_the_clip_that_was_tuned(pth, tmp_path, reference):
    whole_clip().save_pretrained(tmp_path / "clip")
    with pytest.raises(ValueError, match=r"alpha\.pth has no text tower.*Pass text="):
        load_model(pth)
    model = load_model(pth, text=tmp_path / "clip")
    tokens = torch.tensor([[3, 4, 19, 0]])
    image, alpha = inputs(32)
    with torch.no_grad():
        text = whole_clip().get_text_features(tokens).pooler_output
        assert torch.equal(model.get_text_features(tokens).pooler_output, text)
        pooled = model.get_image_features(torch.cat([image, alpha - 1], 1)).pooler_output
        assert difference_of(pooled, reference(image, alpha)) < 5e-6


def test_text_of_another_clip_is_refused(pth, tmp_path):
    parts = {"vision_config": TRANSFORMERS, "text_config": WORDS}
    CLIPModel(CLIPConfig(**parts, projection_dim=24)).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"has 24 channels, .*alpha\.pth has 16"):
        load_model(pth, text=tmp_path / "other")


# open_clip by name


def test_open_clip_tag_decides_activation_and_normalization(tmp_path, monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    name, config = named_config(open_clip, monkeypatch, TINY, head_width=32)
    torch.save(open_clip.model.CLIP(**config).state_dict(), tmp_path / "w.bin")
    tag = {"quick_gelu": True, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: tag)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda _: str(tmp_path / "w.bin"))
    tower, processor = load_tower(name, "some_tag"), load_processor(name, "some_tag")
    assert (tower.config.hidden_act, tower.config.num_attention_heads) == ("quick_gelu", 4)
    assert tuple(processor.image_mean) == (0.5, 0.5, 0.5)
    assert dict(processor.crop_size) == {"height": 32, "width": 32}


def test_open_clip_names_and_tags_that_do_not_exist():
    pytest.importorskip("open_clip")
    with pytest.raises(ValueError, match=r"no architecture that open_clip knows; .*ViT-L-14"):
        load_tower("ViT-L-15", pretrained="laion2b_s32b_b82k")
    with pytest.raises(ValueError, match="neither a file nor a tag of ViT-L-14; its tags: openai"):
        load_tower("ViT-L-14", pretrained="laion3b")
    with pytest.raises(FileNotFoundError, match="open_clip needs pretrained="):
        load_tower("ViT-L-14")
    with pytest.raises(ValueError, match="'pool_type': 'avg'"):
        load_tower("ViT-L-14-CLIPA", pretrained="datacomp1b", dtype=torch.float16)


def test_a_wrong_size_for_the_named_architecture_is_refused(pth):
    pytest.importorskip("open_clip")
    with pytest.raises(ValueError, match="hidden_size 128 instead of 1024"):
        load_tower("ViT-L-14", pretrained=pth)


def test_wide_towers_without_a_name_are_refused(tmp_path):
    wide = openai_state(PublishedTower(1280, 1, 16, 32, 8))
    torch.save(wide, tmp_path / "wide.bin")
    with pytest.raises(ValueError, match=r"1280 wide.*pretrained='.*wide\.bin'"):
        load_tower(tmp_path / "wide.bin")


# Published checkpoints


def test_the_table_of_published_checkpoints():
    assert len({row.name for row in PUBLISHED}) == len({row.drive for row in PUBLISHED}) == 8
    row = published("clip_l14_336_grit_20m_4xe.pth")
    assert row is not None and row.architecture.name == "ViT-L/14@336px"
    tower = AlphaCLIPVisionConfig(hidden_size=768, num_hidden_layers=12, patch_size=16)
    with torch.device("meta"):
        model = AlphaCLIPVisionModelWithProjection(tower)
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[0].architecture.parameters


@pytest.mark.parametrize(
    "name",
    ["clip_b16_grit+mim_fultune_4xe", "some/folder/clip_b16_grit+mim_fultune_4xe.pth"],
)
def test_a_missing_published_file_says_what_to_do(tmp_path, monkeypatch, name):
    monkeypatch.setenv("ALPHACLIP_GEN_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        load_tower(name)
    told = str(caught.value)
    for part in ("4xe.pth (ViT-B/16", "346 MB", "CC BY-NC 4.0", "drive.google.com", str(tmp_path)):
        assert part in told


def test_a_published_name_finds_its_file_and_checks_its_size(pth, tmp_path, monkeypatch):
    monkeypatch.setenv("ALPHACLIP_GEN_WEIGHTS", str(tmp_path))
    pth.rename(tmp_path / "clip_b16_grit1m_fultune_8xe.pth")
    with pytest.raises(ValueError, match=r"hidden_size 128 instead of 768, num_hidden_layers 2"):
        load_tower("clip_b16_grit1m_fultune_8xe")


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


def test_folders_with_the_wrong_weights_are_refused(tmp_path):
    whole_clip().save_pretrained(tmp_path)
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


def test_text_towers_and_empty_folders_are_refused(tmp_path):
    CLIPTextModel(whole_clip().config.text_config).save_pretrained(tmp_path / "text")
    with pytest.raises(ValueError, match="a text tower only"):
        load_tower(tmp_path / "text")
    whole_clip().config.save_pretrained(tmp_path / "config")
    with pytest.raises(FileNotFoundError, match=r"has no weights; expected one of model\.safeten"):
        load_tower(tmp_path / "config")


@pytest.mark.parametrize("name", ["nothing", "no/such.pth", "a/b/c"])
def test_names_of_nothing_are_refused(name):
    with pytest.raises(FileNotFoundError, match="is no file, folder, Hub id"):
        load_tower(name)


def test_hub_ids_fetch_only_what_is_needed(tmp_path, monkeypatch):
    import huggingface_hub

    whole_clip().save_pretrained(tmp_path / "image_encoder")
    asked = []

    def snapshot(repository, allow_patterns):
        asked.extend(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert load_tower("owner/name", subfolder="image_encoder").config.image_size == 32
    assert "image_encoder/model.safetensors" in asked
    assert not [pattern for pattern in asked if pattern.endswith(".bin")]

    def offline(*_, **__):
        raise OSError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(FileNotFoundError, match=r"'owner/name' is no file .*\(offline\)"):
        load_tower("owner/name")
