"""AlphaBlipDiffusionPipeline saved, loaded, published, and as a custom pipeline."""

import json
import shutil
import sys
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline
from tiny_blip_diffusion import half, run, same, tiny_pipeline

from alphaclip_gen.subject import AlphaBlip2QFormerModel, AlphaBlipDiffusionPipeline

CUSTOM = Path(__file__).parents[1] / "pipelines" / "blip_diffusion.py"


def test_save_and_load(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["qformer"] == ["alphaclip_gen", "AlphaBlip2QFormerModel"]
    assert index["text_encoder"] == ["alphaclip_gen", "ContextCLIPTextModel"]
    assert index["image_processor"] == ["alphaclip_gen", "AlphaBlipImageProcessor"]
    assert index["_class_name"] == "AlphaBlipDiffusionPipeline"
    loaded = AlphaBlipDiffusionPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(run(loaded, alpha_mask=half()), run(pipe, alpha_mask=half()))


def published(pipe, folder):
    """The folder of a pipeline as it was published: old class names, no alpha weights."""
    pipe.save_pretrained(folder)
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    index |= {
        "_class_name": "BlipDiffusionPipeline",
        "image_processor": ["blip_diffusion", "BlipImageProcessor"],
        "qformer": ["blip_diffusion", "Blip2QFormerModel"],
        "text_encoder": ["blip_diffusion", "ContextCLIPTextModel"],
    }
    for name in ("controlnet", "qformer_tokenizer", "prompt_reps", "scale_down_factor"):
        index.pop(name, None)
    path.write_text(json.dumps(index))
    return folder


def test_a_published_folder_loads_and_leaves_diffusers_alone(pipe, tmp_path):
    before = dict(vars(diffusers.pipelines))
    folder = published(pipe, tmp_path)
    loaded = AlphaBlipDiffusionPipeline.from_pretrained(
        folder, qformer_tokenizer=pipe.qformer_tokenizer
    )
    loaded.set_progress_bar_config(disable=True)
    assert loaded.config.prompt_reps == 20
    same(run(loaded, prompt_reps=1), run(pipe))
    assert vars(diffusers.pipelines).get("blip_diffusion") is before.get("blip_diffusion")
    assert "alphaclip_gen" not in vars(diffusers.pipelines)


def test_a_hub_id_passes_the_check_of_class_names(pipe, tmp_path, monkeypatch):
    """What diffusers does with a Hub's model_index.json before it downloads the rest."""
    from diffusers.pipelines.pipeline_loading_utils import _get_custom_components_and_folders

    index = json.loads((published(pipe, tmp_path) / "model_index.json").read_text())
    with pytest.raises(ValueError, match="not a module in 'diffusers/pipelines'"):
        _get_custom_components_and_folders("hub/id", index, [])

    def check(cls, name, **options):
        _get_custom_components_and_folders(name, index, [])
        return str(tmp_path)

    monkeypatch.setattr(DiffusionPipeline, "download", classmethod(check))
    loaded = AlphaBlipDiffusionPipeline.from_pretrained(
        "hub/id", qformer_tokenizer=pipe.qformer_tokenizer
    )
    assert AlphaBlipDiffusionPipeline.download("hub/id") == str(tmp_path)
    assert isinstance(loaded.qformer, AlphaBlip2QFormerModel)


def test_the_qformers_tokenizer_is_loaded_on_first_use(tmp_path):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (tmp_path / "vocab.txt").write_text("\n".join([*special, "dog", "cat"]) + "\n")
    pipe = tiny_pipeline(qformer_tokenizer=None)
    pipe.qformer.config.tokenizer = str(tmp_path)
    run(pipe)
    assert pipe.qformer_tokenizer("dog").input_ids == [2, 5, 3]
    assert pipe.qformer_tokenizer.bos_token == "[DEC]"
    pipe.save_pretrained(tmp_path / "saved")
    loaded = AlphaBlipDiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert loaded.qformer_tokenizer("dog").input_ids == [2, 5, 3]


def test_a_qformer_tokenizer_that_cannot_be_had(tmp_path):
    pipe = tiny_pipeline(qformer_tokenizer=None)
    pipe.qformer.config.tokenizer = str(tmp_path / "nothing" / "here" / "deep")
    with pytest.raises(ValueError, match="Pass qformer_tokenizer=BertTokenizer"):
        run(pipe)


@pytest.mark.parametrize("kind", ["own", "published"])
def test_custom_pipeline_file(pipe, tmp_path, kind, monkeypatch):
    monkeypatch.delattr(diffusers.pipelines, "blip_diffusion", raising=False)
    if kind == "own":
        pipe.save_pretrained(tmp_path)
    else:
        published(pipe, tmp_path)
    loaded = DiffusionPipeline.from_pretrained(
        str(tmp_path),
        custom_pipeline=str(CUSTOM),
        trust_remote_code=True,
        qformer_tokenizer=pipe.qformer_tokenizer,
    )
    monkeypatch.delattr(diffusers.pipelines, "blip_diffusion", raising=False)
    assert isinstance(loaded, AlphaBlipDiffusionPipeline)
    loaded.set_progress_bar_config(disable=True)
    same(run(loaded, alpha_mask=(0, 0, 12, 20), prompt_reps=1), run(pipe, alpha_mask=half()))


def test_custom_pipeline_without_the_package_says_so_in_one_line(pipe, tmp_path, monkeypatch):
    pipe.save_pretrained(tmp_path)
    shutil.copy(CUSTOM, tmp_path / "pipeline.py")
    monkeypatch.setitem(sys.modules, "alphaclip_gen", None)
    with pytest.raises(ImportError, match=r"^this pipeline needs alphaclip_gen: pip install .*$"):
        DiffusionPipeline.from_pretrained(
            str(tmp_path), custom_pipeline=str(tmp_path), trust_remote_code=True
        )
