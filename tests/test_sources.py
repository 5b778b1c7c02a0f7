"""Where checkpoints come from: every kind of file and folder, open_clip, the Hub, by hand."""

import json
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from PIL.Image import Resampling
from transformers import (
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from alphaclip_gen.checkpoints import load_model, load_processor, load_tower
from alphaclip_gen.conversion import convert
from alphaclip_gen.published import PUBLISHED, published
from alphaclip_gen.vision import AlphaCLIPVisionConfig, AlphaCLIPVisionModelWithProjection

HERE = Path(__file__).resolve().parent
towers = SimpleNamespace(**runpy.run_path(str(HERE / "tiny_towers.py")))


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    return towers.PublishedTower(**towers.TINY).eval()


@pytest.fixture
def pth(reference, tmp_path):
    torch.save(reference.state_dict(), tmp_path / "alpha.pth")
    return tmp_path / "alpha.pth"


# Kinds of files and folders


def test_several_gpu_prefixes_and_half_precision(reference, tmp_path):
    state = {f"module.{name}": value.half() for name, value in reference.state_dict().items()}
    torch.save(state, tmp_path / "mine.pth")
    image, alpha = towers.inputs(32)
    tower = load_tower(tmp_path / "mine.pth")
    assert tower.dtype == torch.float32
    with torch.no_grad():
        assert towers.difference(tower, image, alpha, reference(image, alpha)) < 5e-3
    assert load_tower(tmp_path / "mine.pth", dtype=torch.float16).dtype == torch.float16


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_openai_archives_and_state_dicts(reference, tmp_path, caplog):
    state = towers.openai_state(reference)
    markers = dict.fromkeys(("input_resolution", "context_length", "vocab_size"), torch.tensor(32))
    torch.jit.save(torch.jit.script(towers.nested(state | markers)), tmp_path / "ViT.pt")
    torch.save(state, tmp_path / "state.pt")
    archive = load_tower(tmp_path / "ViT.pt")
    assert not caplog.records  # an archive says that it is OpenAI's
    saved = load_tower(tmp_path / "state.pt")
    assert "taken as OpenAI's, with quick_gelu" in caplog.text
    assert archive.config.hidden_act == "quick_gelu"
    image, alpha = towers.inputs(32)
    with torch.no_grad():
        base = towers.PublishedTower(**towers.TINY).eval()
        base.load_state_dict(
            {**reference.state_dict(), "conv1_alpha.weight": torch.zeros(128, 1, 8, 8)}
        )
        expected = base(image, alpha)
    assert towers.difference(archive, image, alpha, expected) < 5e-6
    assert not archive.vision_model.embeddings.patch_embedding_alpha.weight.any()
    for name, value in archive.state_dict().items():
        assert torch.equal(value, saved.state_dict()[name]), name


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
    base = kind(CLIPVisionConfig(**towers.TRANSFORMERS, projection_dim=16)).eval()
    if version == 4:
        save_as_transformers_4(base, tmp_path, kind)
    else:
        base.save_pretrained(tmp_path)
    tower = load_tower(tmp_path)
    with_projection = kind is CLIPVisionModelWithProjection
    assert isinstance(tower, AlphaCLIPVisionModelWithProjection) == with_projection
    assert not tower.training and tower.config.num_attention_heads == 4
    image, alpha = towers.inputs(32)
    with torch.no_grad():
        for pixels in (image, torch.cat([image, alpha - 1], 1)):
            for expected, got in zip(base(image)[:2], tower(pixels)[:2], strict=True):
                assert torch.equal(expected, got)


def test_the_configuration_beside_a_file_is_heeded(tmp_path, caplog):
    towers.whole_clip().save_pretrained(tmp_path)
    assert load_tower(tmp_path / "model.safetensors").config.hidden_act == "gelu"
    assert not [record for record in caplog.records if record.name.startswith("alphaclip_gen")]


def test_our_own_folders_keep_trained_alpha(pth, tmp_path, reference):
    tower = load_tower(pth)
    tower.save_pretrained(tmp_path / "ours")
    again = load_tower(tmp_path / "ours")
    image, alpha = towers.inputs(32)
    with torch.no_grad():
        assert towers.difference(again, image, alpha, reference(image, alpha)) < 5e-6
    for name, value in tower.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_subfolder_of_a_pipeline(tmp_path):
    towers.whole_clip().save_pretrained(tmp_path / "image_encoder")
    assert load_tower(tmp_path, subfolder="image_encoder").config.image_size == 32
    with pytest.raises(ValueError, match="subfolder='image_encoder'"):
        load_tower(tmp_path)


# open_clip by name


def test_open_clip_tag_decides_activation_and_preprocessing(tmp_path, monkeypatch):
    open_clip = pytest.importorskip("open_clip")
    name, config = towers.named_config(open_clip, monkeypatch, towers.TINY, head_width=32)
    torch.save(open_clip.model.CLIP(**config).state_dict(), tmp_path / "w.bin")
    tag = {"quick_gelu": True, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    tag |= {"interpolation": "bilinear", "resize_mode": "squash"}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: tag)
    monkeypatch.setattr(open_clip, "download_pretrained", lambda _: str(tmp_path / "w.bin"))
    tower, processor = load_tower(name, "some_tag"), load_processor(name, "some_tag")
    assert (tower.config.hidden_act, tower.config.num_attention_heads) == ("quick_gelu", 4)
    assert tuple(processor.image_mean) == (0.5, 0.5, 0.5)
    assert dict(processor.crop_size) == {"height": 32, "width": 32}
    assert (processor.resample, processor.geometry) == (Resampling.BILINEAR, "squash")


def test_open_clip_folder_tells_preprocessing(tmp_path):
    pytest.importorskip("open_clip")
    folder = tmp_path / "out"
    towers.whole_clip().save_pretrained(tmp_path / "clip")
    convert(tmp_path / "clip", folder, layout="open_clip")
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0, 0, 0]}')
    settings = json.loads((folder / "open_clip_config.json").read_text())
    settings["preprocess_cfg"] = {"mean": [0.1, 0.2, 0.3], "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    processor = load_processor(folder)
    assert tuple(processor.image_mean) == (0.1, 0.2, 0.3)
    assert processor.geometry == "center"


def test_open_clip_text_towers_of_another_kind_are_refused(tmp_path, monkeypatch):
    """MetaCLIP's worldwide ones end texts otherwise: pooled as CLIP's they would be wrong."""
    open_clip = pytest.importorskip("open_clip")
    name, config = towers.named_config(open_clip, monkeypatch, towers.TINY)
    torch.save(open_clip.model.CLIP(**config).state_dict(), tmp_path / "w.pt")
    assert load_model(name, tmp_path / "w.pt").config.text_config.vocab_size == 64
    config["text_cfg"] |= {"pool_type": "eos", "eos_id": 2}
    assert load_tower(name, tmp_path / "w.pt").config.projection_dim == 16
    with pytest.raises(ValueError, match=r"w\.pt has no text tower of CLIP\. Pass text="):
        load_model(name, tmp_path / "w.pt")


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
    wide = towers.openai_state(towers.PublishedTower(1280, 1, 16, 32, 8))
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


# What is refused


def test_text_towers_and_empty_folders_are_refused(tmp_path):
    CLIPTextModel(towers.whole_clip().config.text_config).save_pretrained(tmp_path / "text")
    with pytest.raises(ValueError, match="a text tower only"):
        load_tower(tmp_path / "text")
    towers.whole_clip().config.save_pretrained(tmp_path / "config")
    with pytest.raises(FileNotFoundError, match=r"has no weights; expected one of model\.safeten"):
        load_tower(tmp_path / "config")
    with pytest.raises(ValueError, match=r"no' has no config\.json or open_clip_config\.json"):
        load_tower("mini", subfolder="no")


@pytest.mark.parametrize("name", ["nothing", "no/such.pth", "a/b/c"])
def test_names_of_nothing_are_refused(name):
    with pytest.raises(FileNotFoundError, match="is no file, folder, Hub id"):
        load_tower(name)


# The Hub


def test_hub_ids_fetch_only_what_is_needed(tmp_path, monkeypatch):
    towers.whole_clip().save_pretrained(tmp_path / "image_encoder")
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


@pytest.fixture
def uploads(monkeypatch, tmp_path):
    """A folder with what would be uploaded."""

    def commit(_, repo_id, operations, **__):
        assert repo_id == "owner/name"
        for one in operations:
            shutil.copy(one.path_or_fileobj, tmp_path / one.path_in_repo)

    card = huggingface_hub.ModelCard("---\nlicense: apache-2.0\n---\n")
    repository = SimpleNamespace(repo_id="owner/name")
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda *_, **__: repository)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", commit)
    monkeypatch.setattr(huggingface_hub.ModelCard, "load", lambda *_, **__: card)
    return tmp_path


def test_push_to_hub_uploads_what_loads_again(reference, pth, uploads):
    tower = load_tower(pth)
    pth.unlink()
    tower.push_to_hub("owner/name")
    load_processor("mini").push_to_hub("owner/name")
    assert {path.name for path in uploads.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "README.md",
    }
    assert json.loads((uploads / "config.json").read_text())["model_type"].startswith("alpha_clip")
    again = AlphaCLIPVisionModelWithProjection.from_pretrained(uploads)
    for name, value in tower.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert load_processor(uploads).crop_size.height == 64
