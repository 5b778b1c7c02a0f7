"""The mapping of names and tensors between layouts, on weights made by hand."""

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from alphaclip_gen.dialects import (
    ALPHA,
    fold_alpha,
    from_transformers,
    is_marked_openai,
    layout_of,
    name_in,
    open_clip_settings,
    text_sizes,
    to_transformers,
    vision_sizes,
)

WIDTH, PATCH, PROJECTION = 4, 2, 3


def counted(*shape):
    """Numbers that tell their place."""
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape)


def block(root, fused="attn.in_proj_"):
    weights = {f"{root}.{fused}weight": counted(12, 4), f"{root}.{fused}bias": counted(12)}
    shapes = {"attn.out_proj": (4, 4), "mlp.c_fc": (16, 4), "mlp.c_proj": (4, 16)}
    for name, shape in shapes.items():
        weights |= {f"{root}.{name}.weight": counted(*shape), f"{root}.{name}.bias": torch.ones(4)}
    for name in ("ln_1", "ln_2"):
        weights |= {f"{root}.{name}.weight": torch.ones(4), f"{root}.{name}.bias": torch.ones(4)}
    return weights


def visual(prefix="visual.", fused="attn.in_proj_", alpha=False):
    weights = {
        "class_embedding": counted(4),
        "positional_embedding": counted(5, 4),
        "conv1.weight": counted(4, 3, 2, 2),
        "proj": counted(4, 3),
        "ln_pre.weight": torch.ones(4),
        "ln_pre.bias": torch.zeros(4),
        "ln_post.weight": torch.ones(4),
        "ln_post.bias": torch.zeros(4),
    }
    if alpha:
        weights["conv1_alpha.weight"] = counted(4, 1, 2, 2)
    for number in range(2):
        weights |= block(f"transformer.resblocks.{number}", fused)
    return {prefix + name: value for name, value in weights.items()}


def text():
    return {
        "token_embedding.weight": counted(7, 4),
        "positional_embedding": counted(6, 4),
        "ln_final.weight": torch.ones(4),
        "ln_final.bias": torch.zeros(4),
        "text_projection": counted(4, 3),
        "logit_scale": torch.tensor(4.6),
        **block("transformer.resblocks.0"),
    }


OPENAI = {**visual(), **text()}
PUBLISHED = visual("", "attn.in_proj.", alpha=True)


@pytest.mark.parametrize(
    ("names", "layout"),
    [
        (OPENAI, "openai"),
        (visual(""), "openai"),
        (PUBLISHED, "alpha-clip"),
        ([f"module.{name}" for name in PUBLISHED], "alpha-clip"),
        (to_transformers(OPENAI), "transformers"),
        (["embeddings.patch_embedding.weight"], "transformers"),
    ],
)
def test_layouts_are_told_apart(names, layout):
    assert layout_of(names) == layout


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["visual.attnpool.positional_embedding", "visual.layer1.0.conv1.weight"], "ResNet"),
        (["visual.trunk.patch_embed.proj.weight"], "timm tower"),
        (["text_model.embeddings.token_embedding.weight"], "text tower only"),
        (["encoder.weight"], r"no known CLIP.*1 names: \['encoder.weight'\]"),
    ],
)
def test_what_is_no_vision_transformer_of_clip_is_named(names, message):
    with pytest.raises(ValueError, match=message):
        layout_of(names)


def test_names_are_those_of_transformers_own_model():
    config = CLIPConfig(
        projection_dim=3,
        vision_config={
            "hidden_size": 4,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "image_size": 4,
            "patch_size": 2,
        },
        text_config={
            "hidden_size": 4,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "vocab_size": 7,
            "max_position_embeddings": 6,
            "bos_token_id": 5,
            "eos_token_id": 6,
        },
    )
    expected = {name: value.shape for name, value in CLIPModel(config).state_dict().items()}
    got = {name: value.shape for name, value in to_transformers(OPENAI).items()}
    wrong_bias = {name for name in expected if name.endswith("fc1.bias")}
    assert got.keys() == expected.keys()
    assert {n for n in got if got[n] != expected[n]} <= wrong_bias  # block() gives 4, not 16


def test_query_key_and_value_by_hand():
    state = to_transformers(OPENAI)
    fused = counted(12, 4)
    for part, rows in (("q", slice(0, 4)), ("k", slice(4, 8)), ("v", slice(8, 12))):
        name = f"vision_model.encoder.layers.1.self_attn.{part}_proj.weight"
        assert torch.equal(state[name], fused[rows])
    assert state["visual_projection.weight"].tolist() == counted(4, 3).T.tolist()
    assert state["visual_projection.weight"].is_contiguous()


def test_open_clip_keeps_alpha_in_a_fourth_channel():
    state = to_transformers(PUBLISHED)
    four = from_transformers(state, "open_clip")
    assert torch.equal(four["visual.conv1.weight"][:, :3], PUBLISHED["conv1.weight"])
    assert torch.equal(four["visual.conv1.weight"][:, 3:], PUBLISHED["conv1_alpha.weight"])
    again = to_transformers(four)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("layout", "original"), [("openai", OPENAI), ("open_clip", OPENAI), ("alpha-clip", PUBLISHED)]
)
def test_there_and_back_is_the_same(layout, original):
    again = from_transformers(to_transformers(original), layout)
    assert again.keys() == original.keys()
    assert all(torch.equal(again[name], original[name]) for name in original)


def test_prefixes_and_buffers_without_weights_are_left_out():
    wrapped = {f"module.{name}": value for name, value in PUBLISHED.items()}
    assert to_transformers(wrapped).keys() == to_transformers(PUBLISHED).keys()
    custom = {(n if n.startswith("visual.") else f"text.{n}"): v for n, v in OPENAI.items()}
    custom["logit_scale"] = custom.pop("text.logit_scale")
    assert to_transformers(custom).keys() == to_transformers(OPENAI).keys()
    markers = dict.fromkeys(("input_resolution", "context_length", "vocab_size"), torch.tensor(7))
    old = {**to_transformers(OPENAI), "text_model.embeddings.position_ids": torch.arange(6)}
    assert to_transformers({**OPENAI, **markers}).keys() == to_transformers(OPENAI).keys()
    assert to_transformers(old).keys() == to_transformers(OPENAI).keys()
    assert is_marked_openai({**OPENAI, **markers}) and not is_marked_openai(OPENAI)


def test_transformers_5_flattened_towers_get_their_prefix():
    state = to_transformers(visual())
    state.pop("visual_projection.weight")
    flat = {name.removeprefix("vision_model."): value for name, value in state.items()}
    assert to_transformers(flat).keys() == state.keys()


def test_unknown_names_pass_through():
    state = to_transformers({**OPENAI, "visual.transformer.resblocks.0.gate.weight": counted(1)})
    assert "visual.transformer.resblocks.0.gate.weight" in state


@pytest.mark.parametrize(
    ("layout", "original"), [("openai", OPENAI), ("alpha-clip", PUBLISHED), ("transformers", None)]
)
def test_names_in_messages_are_those_of_the_source(layout, original):
    state = to_transformers(PUBLISHED if original is None else original)
    named = {name_in(name, layout) for name in state}
    assert named == set(state if original is None else original)


def test_folded_alpha_by_hand():
    state = to_transformers(PUBLISHED)
    folded = fold_alpha(state)
    assert ALPHA not in folded
    positions = "vision_model.embeddings.position_embedding.weight"
    moved = folded[positions] - state[positions]
    sums = torch.tensor([6.0, 22.0, 38.0, 54.0])  # 0+1+2+3, 4+5+6+7, ...
    torch.testing.assert_close(moved[1:], (sums * 0.5 / 0.26).expand(4, -1))
    assert not moved[0].any()
    assert torch.equal(fold_alpha(folded)[positions], folded[positions])


def test_layouts_refuse_what_they_cannot_hold():
    state = to_transformers(PUBLISHED)
    with pytest.raises(ValueError, match=r"'openai' .* cannot hold alpha.*fold_alpha\(\)"):
        from_transformers(state, "openai")
    with pytest.raises(ValueError, match="'alpha-clip' needs alpha weights"):
        from_transformers(fold_alpha(state), "alpha-clip")


def test_sizes_by_hand():
    state = to_transformers(OPENAI)
    assert vision_sizes(state, head_width=2) == {
        "hidden_size": 4,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 3,
        "patch_size": 2,
        "image_size": 4,
    }
    sizes = text_sizes(state, head_width=4)
    assert (sizes["vocab_size"], sizes["eos_token_id"], sizes["max_position_embeddings"]) == (
        7,
        6,
        6,
    )


def test_shapes_that_fit_no_tower_are_refused():
    with pytest.raises(ValueError, match="4 wide, no multiple of the 64 channels"):
        vision_sizes(to_transformers(OPENAI))
    crooked = {**OPENAI, "visual.positional_embedding": counted(7, 4)}
    with pytest.raises(ValueError, match="has 7 rows; expected 1 and a square number"):
        vision_sizes(to_transformers(crooked), head_width=2)
    headless = {name: value for name, value in OPENAI.items() if name != "visual.conv1.weight"}
    with pytest.raises(ValueError, match=r"hold no .*patch_embedding.*visual\.conv1\.weight"):
        vision_sizes(to_transformers(headless), head_width=2)


@pytest.mark.parametrize(
    ("name", "activation", "width", "heads"),
    [
        ("ViT-B-32", "gelu", 768, 12),
        ("ViT-B-32-quickgelu", "quick_gelu", 768, 12),
        ("ViT-L-14", "gelu", 1024, 16),
        ("ViT-H-14", "gelu", 1280, 16),
        ("ViT-g-14", "gelu", 1408, 16),
        ("ViT-bigG-14", "gelu", 1664, 16),
    ],
)
def test_open_clip_s_own_towers_are_known(name, activation, width, heads):
    open_clip = pytest.importorskip("open_clip")
    config = open_clip.get_model_config(name)
    settings = open_clip_settings(config)
    assert settings["hidden_act"] == activation
    assert (config["vision_cfg"]["width"], width // settings["head_width"]) == (width, heads)


def test_open_clip_settings_come_from_its_config():
    plain = {"vision_cfg": {"width": 1280, "head_width": 80, "pool_type": "tok"}}
    assert open_clip_settings(plain) == {"hidden_act": "gelu", "head_width": 80}
    assert open_clip_settings({**plain, "quick_gelu": True})["hidden_act"] == "quick_gelu"
    for setting in ({"pool_type": "avg"}, {"timm_model_name": "vit"}, {"layers": [3, 4, 6, 3]}):
        with pytest.raises(ValueError, match=next(iter(setting))):
            open_clip_settings({"vision_cfg": setting})
