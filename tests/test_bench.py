"""The benchmark's cases at tiny size, and its tables."""

import importlib.util
import io
import json
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
import tyro
from rich.console import Console

from alphaclip_gen import bench as program
from alphaclip_gen import bench_cases
from alphaclip_gen.bench import Bench, bench, markdown, sheets
from alphaclip_gen.bench_cases import make_encoders, make_towers, pipeline_cases, tower_cases

CPU = torch.device("cpu")
SMALL = bench_cases.UNETS["small"]
TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": 16,
}


@pytest.fixture(autouse=True)
def tiny_towers(monkeypatch):
    for name in bench_cases.TOWERS:
        monkeypatch.setitem(bench_cases.TOWERS, name, TINY)
    monkeypatch.setitem(bench_cases.UNETS, "small", bench_cases.UNETS["tiny"])


@pytest.fixture
def towers():
    return make_towers("B/32", CPU, torch.float32)


# What is measured


def test_towers_share_all_weights_but_alpha(towers):
    stock = towers.stock.state_dict()
    ours, training_free = towers.ours.state_dict(), towers.training_free.state_dict()
    for name, weight in stock.items():
        assert ours[name].data_ptr() == training_free[name].data_ptr() == weight.data_ptr(), name
    (alpha,) = ours.keys() - stock.keys()
    assert alpha.endswith("patch_embedding_alpha.weight") and ours[alpha].abs().min() > 0
    assert training_free.keys() == stock.keys()
    assert {tower.config._attn_implementation for tower in towers} == {"sdpa"}


@torch.no_grad()
def test_forwards_differ_where_their_towers_do(towers):
    cases = tower_cases(towers, batch=2)
    found = {name: case().image_embeds for name, case in cases.items()}
    assert all(embeds.shape == (2, TINY["projection_dim"]) for embeds in found.values())
    stock, again, *others = found.values()
    assert torch.equal(stock, again)
    assert len({tuple(embeds[0].tolist()) for embeds in (stock, *others)}) == 4


@torch.no_grad()
def test_pipeline_calls_differ_where_their_towers_do(towers):
    for parameter in towers.stock.parameters():
        parameter.mul_(2)  # so that the tower is felt in eight bits
    pictures = {name: np.asarray(case()) for name, case in pipeline_cases(towers, 2).items()}
    stock, again, *others = pictures.values()
    assert stock.shape == (16, 16, 3)
    assert np.array_equal(stock, again)
    assert len({picture.tobytes() for picture in (stock, *others)}) == 4


def test_the_small_unet_has_a_sixteenth_of_stable_diffusions_weights():
    """A quarter of the width; Stable Diffusion 1's has 860 million."""
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(cross_attention_dim=768, **SMALL)
    assert sum(weight.numel() for weight in unet.parameters()) == pytest.approx(860e6 / 16, rel=0.1)
    assert unet.config.sample_size == 32


@torch.no_grad()
def test_regions_are_the_same_in_one_batch_and_one_by_one():
    encoders = make_encoders("B/16", CPU, torch.float32)
    assert list(encoders) == ["mini", "ViT-B/16"]
    cases = bench_cases.region_cases(encoders["mini"], 3)
    batch, calls = cases["one batch"](), cases["calls"]()
    assert len(batch) == 3
    torch.testing.assert_close(batch, calls, atol=1e-5, rtol=0)
    assert not torch.allclose(batch[0], batch[1], atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_runs(dtype):
    towers = make_towers("B/32", CPU, dtype)
    assert tower_cases(towers, 1)["Alpha-CLIP, half mask"]().image_embeds.dtype == dtype
    assert pipeline_cases(towers, 1)["Alpha-CLIP, RGBA"]().size == (16, 16)
    encoder = make_encoders("B/16", CPU, dtype)["ViT-B/16"]
    assert bench_cases.region_cases(encoder, 2)["one batch"]().dtype == dtype


# The program


def test_every_row_is_printed_and_written(tmp_path, monkeypatch):
    ticks = iter(range(10**6))
    monkeypatch.setattr(program, "clock_of", lambda device: lambda: float(next(ticks)))
    console = Console(file=io.StringIO(), width=160)
    config = Bench(towers=("B/32", "L/14"), regions=(1, 4), output=tmp_path / "new")
    config = replace(config, rounds=3, seconds=0.0, steps=1)
    result = bench(config, console)
    forwards = [
        "stock",
        "stock, again",
        "Alpha-CLIP, three channels",
        "Alpha-CLIP, half mask",
        "training-free, half mask",
    ]
    calls = [*forwards[:2], "Alpha-CLIP, RGB", "Alpha-CLIP, RGBA", "training-free, RGBA"]
    assert [(row["what"], row["tower"], row["case"]) for row in result["time"]] == [
        *(("tower", "ViT-B/32", case) for case in forwards),
        *(("tower", "ViT-L/14", case) for case in forwards),
        *(("pipeline, tiny U-Net", "ViT-L/14", case) for case in calls),
        *(("pipeline, small U-Net", "ViT-L/14", case) for case in calls),
    ]
    assert {(row["seconds"], row["ratio"]) for row in result["time"]} == {(1.0, 1.0)}
    names = [forwards[0], *forwards[2:]]
    assert [row["case"] for row in result["memory"]] == 2 * names
    stock, three, four, training_free = result["memory"][:4]
    alpha = 4 * TINY["hidden_size"] * TINY["patch_size"] ** 2
    assert three["weights"] == four["weights"] == stock["weights"] + alpha
    assert training_free["weights_ratio"] == 1
    assert min(row["peak"] for row in result["memory"]) > 0
    assert [(row["encoder"], row["regions"]) for row in result["regions"]] == [
        (encoder, count) for encoder in ("mini", "ViT-B/16") for count in (1, 4)
    ]
    assert result["regions"][1]["batch_speed"] == result["regions"][1]["calls_speed"] == 4.0
    assert json.loads((tmp_path / "new" / "bench.json").read_text()) == json.loads(
        json.dumps(result)
    )
    assert (tmp_path / "new" / "cost.md").read_text() == markdown(result)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["bench.json", "cost.md"]
    printed = console.file.getvalue()
    for text in ("ViT-L/14", "Alpha-CLIP, RGBA", "N regions of one picture", "torch", "rounds"):
        assert text in printed


def test_tables_say_what_is_too_slow():
    def timing(case, ratio):
        spread = {"ratio": ratio, "low": ratio - 0.01, "high": ratio + 0.01}
        return {"what": "tower", "tower": "ViT-X", "case": case, "seconds": 0.0123, **spread}

    result = {
        "conditions": {
            "date": "2026-01-02",
            "machine": "abacus",
            "cores": 2,
            "threads": 1,
            "versions": {"torch": "2.9"},
            **{"dtype": "float32", "batch": 3, "steps": 4, "rounds": 5, "seconds": 20.0},
        },
        "time": [timing("stock, again", 1.03), timing("good", 1.02), timing("bad", 1.0301)],
        "memory": [
            {"tower": "ViT-X", "case": "good", "weights": 2_500_000, "weights_ratio": 1.25}
            | {"peak": 400_000, "peak_ratio": 0.5}
        ],
        "regions": [
            {"encoder": "mini", "regions": 4, "batch_speed": 30.0, "calls_speed": 10.0}
            | {"ratio": 3.0, "low": 2.5, "high": 3.25}
        ],
    }
    assert [sheet.title for sheet in sheets(result)] == [
        "Time",
        "Memory",
        "N regions of one picture",
    ]
    lines = markdown(result).splitlines()
    for line in (
        "|  | tower | case | ms | / stock | quartiles | at most 1.02 |",
        "| tower | ViT-X | stock, again | 12.3 | 1.030 | 1.020 to 1.040 |  |",
        "| tower | ViT-X | good | 12.3 | 1.020 | 1.010 to 1.030 | yes |",
        "| tower | ViT-X | bad | 12.3 | 1.030 | 1.020 to 1.040 | no |",
        "| ViT-X | good | 2.5 | 1.250 | 0.4 | 0.500 |",
        "| mini | 4 | 30.0 | 10.0 | 3.00 | 2.50 to 3.25 |",
    ):
        assert line in lines
    assert lines[-1].startswith("2026-01-02: abacus, cores 2, threads 1, torch 2.9, float32; ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 2}, "rounds is 2; expected 3 or more"),
        ({"seconds": -1.0}, r"seconds is -1\.0; expected 0 or more"),
        ({"batch": 0}, "batch is 0; expected 1 or more"),
        ({"steps": 0}, "steps is 0; expected 1 or more"),
        ({"towers": ()}, "towers is empty; expected some of B/32, B/16, L/14, L/14@336"),
        ({"regions": ()}, r"regions is \(\); expected numbers of 1 or more"),
        ({"regions": (4, 0)}, r"regions is \(4, 0\); expected numbers of 1 or more"),
        ({"device": "abacus"}, "device is 'abacus', which cannot be used here"),
        ({"device": "cuda:77"}, "device is 'cuda:77', which cannot be used here"),
        ({"device": "meta"}, "device is 'meta'; expected cpu or cuda"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_measured(changes, message, monkeypatch):
    monkeypatch.delattr(program, "make_towers")
    with pytest.raises(ValueError, match=message):
        bench(Bench(**changes), Console(file=io.StringIO()))


def test_a_file_is_no_output_folder(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ValueError, match=r"output '.*taken' can't be written: .*--output"):
        bench(Bench(output=tmp_path / "taken"), Console(file=io.StringIO()))


def test_missing_diffusers_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"bench needs diffusers: .*alphaclip-gen\[diffusion\]"):
        bench(Bench(), Console(file=io.StringIO()))


@pytest.mark.parametrize("flags", [["--towers", "Z/1"], ["--dtype", "int8"], ["--rounds", "x"]])
def test_unknown_flags_end_with_exit_code_2(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        tyro.cli(Bench, args=flags)
    assert stop.value.code == 2
    assert flags[0].removeprefix("--") in capsys.readouterr().err
