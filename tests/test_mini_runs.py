"""What trainings keep: logs without folders, checkpoints all or nothing, averages, rates."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from alphaclip_gen.mini.rates import mean_rate, rate, shown, wilson
from alphaclip_gen.mini.runs import (
    follow,
    load_checkpoint,
    save_checkpoint,
    set_rate,
    settings,
    size_in_mb,
    step_generator,
    write_log,
)


def test_a_log_has_settings_and_of_folders_their_names(tmp_path):
    @dataclass
    class Config:
        output: Path = Path("/home/someone/runs/mini")
        steps: int = 3

    write_log(tmp_path / "new" / "log.jsonl", config=settings(Config()))
    write_log(tmp_path / "new" / "log.jsonl", step=1)
    lines = (tmp_path / "new" / "log.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert first["config"] == {"output": "mini", "steps": "3"}
    assert second["step"] == 1 and "time" in second


def test_settings_tell_apart_folders_of_other_weights(tmp_path):
    @dataclass
    class Config:
        start: Path

    said = set()
    for number in range(2):
        folder = tmp_path / str(number) / "mini"
        (folder / "vae").mkdir(parents=True)
        (folder / "vae" / "model.safetensors").write_bytes(bytes([number]))
        said.add(settings(Config(folder))["start"])
    digest = hashlib.sha256(bytes([0])).hexdigest()[:16]
    assert len(said) == 2 and f"mini sha256:{digest}" in said


def test_checkpoints_restore_every_part(tmp_path):
    path, model = tmp_path / "checkpoint.pt", torch.nn.Linear(2, 2)
    other = torch.nn.Linear(2, 2)
    assert load_checkpoint(path, model=other) == 0
    save_checkpoint(path, 7, model=model)
    assert load_checkpoint(path, model=other) == 7
    assert torch.equal(other.weight, model.weight)
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]
    with pytest.raises(ValueError, match=r"checkpoint.pt holds model; expected judge\. .* delete"):
        load_checkpoint(path, judge=other)


def test_the_average_follows_by_hand():
    """Step 0 moves nine tenths of the way; late steps by 1 - decay."""
    average, model = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        average.weight.fill_(0)
        model.weight.fill_(1)
    follow(average, model, 0)
    assert average.weight.item() == pytest.approx(0.9)
    follow(average, model, 10**6, decay=0.75)
    assert average.weight.item() == pytest.approx(0.925)


def test_rates_warm_up_and_fall():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    found = []
    for progress, step in ((0.0, 0), (0.01, 9), (0.5, 500), (1.0, 1000)):
        set_rate(optimizer, progress, step, warm_up=10)
        found.append(optimizer.param_groups[0]["lr"])
    assert found == pytest.approx([0.2, 2.0, 1.01, 0.02], abs=1e-3)


def test_steps_draw_from_generators_of_their_own():
    draws = {
        (seed, step): torch.rand(1, generator=step_generator(seed, step)).item()
        for seed in (0, 1)
        for step in (0, 1)
    }
    assert len(set(draws.values())) == 4
    assert draws[0, 1] == torch.rand(1, generator=step_generator(0, 1)).item()


def test_megabytes_in_half_precision_by_hand():
    assert size_in_mb(torch.nn.Linear(1000, 1000, bias=False)) == 2.0


def test_wilson_by_hand():
    """At 0 of n the upper end is z^2 / (n + z^2); at one half the interval is even about it."""
    low, high = wilson(0, 10)
    assert low == 0 and high == pytest.approx(1.96**2 / (10 + 1.96**2))
    low, high = wilson(50, 100)
    assert low == pytest.approx(0.4038, abs=1e-4) and low + high == pytest.approx(1)


def test_rates_of_answers():
    figure = rate(torch.tensor([True, True, False, True]))
    assert figure["rate"] == 0.75 and figure["low"] < 0.75 < figure["high"]
    assert shown(figure) == "0.75 (0.30 to 0.95)"
    with pytest.raises(ValueError, match="right has no entries"):
        rate(torch.zeros(0, dtype=torch.bool))


def test_answers_of_a_group_count_as_one_trial():
    """Three groups of two: all, one and none right is a half, as wide as of three trials."""
    right = torch.tensor([[True, True], [True, False], [False, False]])
    low, high = wilson(1.5, 3)
    assert mean_rate(right) == {"rate": 0.5, "low": round(low, 4), "high": round(high, 4)}
