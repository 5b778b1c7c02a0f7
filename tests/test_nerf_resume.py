"""Checkpoints: a run killed at any moment goes on and ends as if never stopped."""

import dataclasses
import errno
import json
import os
import random
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import trimesh

import checkpoint
import optimize
import run as running
from formats import read_glb
from interrupts import asked_to_stop
from session import SessionSettings, check_session

ROOT = Path(__file__).resolve().parents[1]
STAND_IN = runpy.run_path(str(ROOT / "tests" / "stand_in_tower.py"))
Moments, SMALL, FLAGS = STAND_IN["Moments"], STAND_IN["SMALL"], STAND_IN["FLAGS"]
PARTS = ("a red stick @ right:weight=2", "a blue disk @ ball -0.4 0 0 0.4:avoid=a red disk")
EVERY_STEP = SessionSettings(checkpoint_seconds=0, every=1)
RESUMED = SessionSettings(checkpoint_seconds=0, every=1, resume=True)


def made(folder: Path, config=SMALL, **tower) -> dict:
    folder.mkdir(exist_ok=True)
    return optimize.run(config, (Moments(**tower),), folder, quiet=True)


def replaced(config, **parts: dict):
    """The settings with some of their parts' changed."""
    changed = {name: dataclasses.replace(getattr(config, name), **p) for name, p in parts.items()}
    return dataclasses.replace(config, **changed)


def lasting(result: dict) -> dict:
    """What must not depend on how a result came about."""
    passing = {"resumed_from", "settings", "threads"}
    return {k: v for k, v in result.items() if k not in passing and "second" not in k}


# Going on


@pytest.mark.parametrize("calls", [5, 8, 11])
def test_a_run_stopped_in_any_stage_ends_the_same(tmp_path, calls) -> None:
    """Stopped in the middle of a step: the random numbers of that step were drawn in part."""
    config = dataclasses.replace(SMALL, steps=9, session=EVERY_STEP)
    whole = made(tmp_path / "whole", config)
    stopped = made(tmp_path / "stopped", config, interrupt_after=calls)
    assert stopped["interrupted"] and stopped["steps"] == calls - 3
    resumed = made(tmp_path / "stopped", dataclasses.replace(config, session=RESUMED))
    assert resumed["resumed_from"] == stopped["steps"] and not resumed["interrupted"]
    assert lasting(resumed) == lasting(whole)
    for name in ("mesh.glb", "turntable.gif", "timeline.png"):
        assert (tmp_path / "stopped" / name).read_bytes() == (
            tmp_path / "whole" / name
        ).read_bytes()
    assert not (tmp_path / "stopped" / checkpoint.FILE).exists()


@pytest.mark.parametrize(
    "config",
    [
        replaced(SMALL, field={"kind": "implicit", "width": 16}),
        replaced(SMALL, adam={"masked": True, "scaled": False}),
        replaced(SMALL, adam={"reset_on_growth": True}, field={"growth_drop": 0.5}),
        dataclasses.replace(SMALL, split_views=2),
        replaced(dataclasses.replace(SMALL, parts=PARTS), field={"mirror": "none"}),
        replaced(dataclasses.replace(SMALL, prompt=None, parts=PARTS), field={"mirror": "none"}),
    ],
    ids=["implicit", "masked", "reset", "shares", "parts", "parts alone"],
)
def test_every_kind_of_run_goes_on(tmp_path, config) -> None:
    config = dataclasses.replace(config, steps=9, session=EVERY_STEP)
    whole = made(tmp_path / "whole", config)
    stopped = made(tmp_path / "stopped", config, interrupt_after=9)
    assert 0 < stopped["steps"] < 9
    resumed = made(tmp_path / "stopped", dataclasses.replace(config, session=RESUMED))
    assert lasting(resumed) == lasting(whole)
    meshes = [(tmp_path / name / "mesh.glb").read_bytes() for name in ("whole", "stopped")]
    assert meshes[0] == meshes[1]


def test_a_start_that_is_kept_in_part_goes_on(tmp_path) -> None:
    """Its file belongs to the settings: another one of that name is refused."""
    path = tmp_path / "start.ply"
    trimesh.creation.box((1.0, 0.6, 0.8)).export(path)
    start = {"start": path, "keep": ("bottom",), "fit": False}
    config = replaced(dataclasses.replace(SMALL, steps=6, session=EVERY_STEP), start=start)
    whole = made(tmp_path / "whole", config)
    stopped = made(tmp_path / "stopped", config, interrupt_after=4)
    assert 0 < stopped["steps"] < 6
    before = path.read_bytes()
    trimesh.creation.box((1.0, 0.6, 0.9)).export(path)
    with pytest.raises(ValueError, match=r"of other settings: digests\..*start\.ply is '"):
        made(tmp_path / "stopped", dataclasses.replace(config, session=RESUMED))
    path.write_bytes(before)
    resumed = made(tmp_path / "stopped", dataclasses.replace(config, session=RESUMED))
    assert lasting(resumed) == lasting(whole)
    meshes = [(tmp_path / name / "mesh.glb").read_bytes() for name in ("whole", "stopped")]
    assert meshes[0] == meshes[1]
    kept = read_glb(meshes[0]).bounds
    assert kept[0] == pytest.approx([-0.5, -0.3, -0.4], abs=0.12)  # a voxel is 0.13 wide


def program(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "tests" / "stand_in_tower.py"), *arguments]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'nerf'}",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def test_kill_9_at_a_random_moment_costs_nothing(tmp_path) -> None:
    steps, rng = 60, random.Random()
    flags = [*FLAGS, "--steps", str(steps), "--every", "1", "--checkpoint-seconds", "0"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = ["--prompt", "a red stick", *flags, "--output"]
    with program(*command, str(whole)) as first, program(*command, str(killed)) as second:
        seen = killed / "previews" / f"step-{rng.randrange(2, steps // 2):06d}.png"
        while not seen.exists() and second.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.03))
        second.kill()
        assert first.wait() == 0, first.stderr.read()
        assert second.wait() == -signal.SIGKILL, second.stderr.read()
    step = checkpoint.step_in(killed)
    assert step is not None and 0 < step < steps and not (killed / "result.json").exists()
    with program(*command, str(killed), "--resume") as third:
        assert third.wait() == 0, third.stderr.read()
    assert (killed / "mesh.glb").read_bytes() == (whole / "mesh.glb").read_bytes()
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, killed)]
    assert lasting(results[0]) == lasting(results[1]) and results[1]["resumed_from"] == step
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()}


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """As in a terminal; jobs in the background begin with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_the_step_and_keeps_it(tmp_path, ctrl_c) -> None:
    """Checkpoints are far apart: without one at the end, nothing could be gone on from."""
    seldom = SessionSettings(checkpoint_seconds=1e9)
    config = dataclasses.replace(SMALL, steps=6, session=seldom)
    whole = made(tmp_path / "whole", config)

    class Pressed(Moments):
        def embed(self, *arguments):
            if self.calls == 6:
                signal.raise_signal(signal.SIGINT)
            return super().embed(*arguments)

    (tmp_path / "parts").mkdir()
    stopped = optimize.run(config, (Pressed(),), tmp_path / "parts", quiet=True)
    assert stopped["stopped"] == "interrupted" and 0 < stopped["steps"] < 6
    assert checkpoint.step_in(tmp_path / "parts") == stopped["steps"]
    on = dataclasses.replace(config, session=dataclasses.replace(seldom, resume=True))
    resumed = made(tmp_path / "parts", on)
    assert resumed["resumed_from"] == stopped["steps"] and lasting(resumed) == lasting(whole)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_interrupts_at_once(ctrl_c) -> None:
    with asked_to_stop() as stopping:
        assert not stopping()
        signal.raise_signal(signal.SIGINT)
        assert stopping()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_that_is_ignored_stays_so(ctrl_c) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with asked_to_stop() as stopping:
        signal.raise_signal(signal.SIGINT)
        assert not stopping()


def test_killed_while_saving_goes_on_at_the_end(tmp_path, monkeypatch) -> None:
    """All steps are done then: nothing is optimized again."""
    config = dataclasses.replace(SMALL, session=SessionSettings(checkpoint_seconds=1e9))

    def fail(*arguments) -> dict:
        raise SystemExit("killed")

    with monkeypatch.context() as patch:
        patch.setattr(running, "save_result_files", fail)
        with pytest.raises(SystemExit):
            made(tmp_path, config)
    assert checkpoint.step_in(tmp_path) == 3
    tower = Moments()
    result = optimize.run(
        dataclasses.replace(config, session=RESUMED), (tower,), tmp_path, quiet=True
    )
    assert result["steps"] == result["resumed_from"] == 3 and tower.calls == 1


def test_seconds_add_up_over_all_attempts(tmp_path) -> None:
    config = dataclasses.replace(SMALL, steps=5, session=EVERY_STEP)
    stopped = made(tmp_path, config, interrupt_after=6)
    resumed = made(tmp_path, dataclasses.replace(config, session=RESUMED))
    assert resumed["seconds_by_part"]["warm start"] >= stopped["seconds_by_part"]["warm start"]
    assert resumed["seconds"] >= sum(resumed["seconds_by_part"].values()) - 0.05


def test_what_a_killed_run_left_half_written_is_removed(tmp_path) -> None:
    (tmp_path / "previews").mkdir()
    half = [".checkpoint.pt.123", ".mesh.glb.4567", "previews/.step-000003.png.89"]
    others = [".hidden", ".mesh.glb.backup.123", "mesh.glb.123", ".other.txt.123"]
    for name in half + others:
        (tmp_path / name).write_text("half")
    made(tmp_path)
    assert not [name for name in half if (tmp_path / name).exists()]
    assert not [name for name in others if not (tmp_path / name).exists()]


# The command line


def test_resume_from_the_command_line(tmp_path, monkeypatch, capsys) -> None:
    """It completes what is there, begins where nothing is, and knows what is finished."""
    towers = [Moments(interrupt_after=5), Moments(), Moments()]
    monkeypatch.setattr(optimize, "load_encoders", lambda config: (towers.pop(0),))
    command = ["--prompt", "a red stick", "--output", str(tmp_path / "out"), *FLAGS, "--resume"]
    command += ["--checkpoint-seconds", "0"]
    assert optimize.main(command) == 130
    assert "stopped after 2 steps" in capsys.readouterr().out
    assert optimize.main(command) == 0
    assert "done in" in capsys.readouterr().out
    assert optimize.main(command) == 0
    assert "finished before" in capsys.readouterr().out and len(towers) == 1


def test_a_checkpoint_of_other_settings_is_refused(tmp_path, monkeypatch, capsys) -> None:
    config = dataclasses.replace(SMALL, session=EVERY_STEP)
    made(tmp_path, config, interrupt_after=5)
    before = (tmp_path / checkpoint.FILE).read_bytes()
    other = dataclasses.replace(replaced(config, adam={"eps": 0.25}), seed=5, session=RESUMED)
    message = r"of other settings: seed is 0 there, 5 here; adam\.eps is 0\.5 there, 0\.25 here"
    with pytest.raises(ValueError, match=message):
        made(tmp_path, other)
    with pytest.raises(ValueError, match="prompt is 'a red stick' there, 'a red disk' here"):
        made(tmp_path, dataclasses.replace(config, prompt="a red disk", session=RESUMED))
    assert (tmp_path / checkpoint.FILE).read_bytes() == before


def test_files_may_be_asked_for_differently(tmp_path) -> None:
    config = dataclasses.replace(SMALL, session=EVERY_STEP)
    made(tmp_path, config, interrupt_after=5)
    other = replaced(config, pictures={"frames": 3}, mesh={"formats": ("stl",)})
    resumed = dataclasses.replace(other, session=RESUMED, device="cpu:0")
    assert made(tmp_path, resumed)["resumed_from"] == 2
    assert (tmp_path / "mesh.stl").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "can't be read"),
        (lambda data: b"", "can't be read"),
        (lambda data: data.replace(b"edition", b"EDITION"), "can't be read"),
    ],
)
def test_a_damaged_checkpoint_is_named(tmp_path, damage, message) -> None:
    made(tmp_path, dataclasses.replace(SMALL, session=EVERY_STEP), interrupt_after=5)
    path = tmp_path / checkpoint.FILE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"checkpoint.pt {message}.*begin anew without --resume"):
        made(tmp_path, dataclasses.replace(SMALL, session=RESUMED))


def test_a_checkpoint_runs_nothing(tmp_path) -> None:
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "broken-in"),))

    torch.save({"edition": 1, "field": Evil()}, tmp_path / checkpoint.FILE)
    with pytest.raises(ValueError, match="can't be read"):
        made(tmp_path, dataclasses.replace(SMALL, session=RESUMED))
    assert not (tmp_path / "broken-in").exists()


def test_of_another_edition(tmp_path) -> None:
    torch.save({"edition": 99}, tmp_path / checkpoint.FILE)
    with pytest.raises(ValueError, match="is of edition 99; expected 1"):
        made(tmp_path, dataclasses.replace(SMALL, session=RESUMED))


def test_without_resume_it_begins_anew(tmp_path) -> None:
    config = dataclasses.replace(SMALL, session=EVERY_STEP)
    made(tmp_path, config, interrupt_after=5)
    result = made(tmp_path, dataclasses.replace(config, session=SessionSettings(every=2)))
    assert result["resumed_from"] is None
    names = {path.name for path in (tmp_path / "previews").iterdir()}
    assert names == {"step-000000.png", "step-000002.png", "step-000003.png"}


# Disks that are full, losses that are no numbers


@pytest.mark.parametrize("failing", [checkpoint.FILE, "step-", "mesh.glb", "result.json"])
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch, failing) -> None:
    config = dataclasses.replace(SMALL, steps=6, session=EVERY_STEP)
    whole = made(tmp_path / "whole", config)
    real, calls = os.replace, []

    def full(source, target) -> None:
        calls.append(target)
        if Path(target).name.startswith(failing) and len(calls) > 6:  # the third step is over
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(running.RunStopped, match=r"No space left on device; step \d is kept"):
            made(tmp_path / "full", config)
    assert not [p.name for p in (tmp_path / "full").iterdir() if p.name.startswith(".")]
    resumed = made(tmp_path / "full", dataclasses.replace(config, session=RESUMED))
    assert resumed["resumed_from"] > 0 and lasting(resumed) == lasting(whole)


def test_a_full_disk_is_told_on_the_command_line(tmp_path, monkeypatch, capsys) -> None:
    def full(*arguments) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(optimize, "load_encoders", lambda config: (Moments(),))
    monkeypatch.setattr(os, "replace", full)
    assert optimize.main(["--prompt", "a red stick", "--output", str(tmp_path), *FLAGS]) == 1
    error = capsys.readouterr().err
    assert "No space left on device; no checkpoint was written yet" in error
    assert "--resume" in error


def test_nan_keeps_the_last_good_state(tmp_path, monkeypatch, capsys) -> None:
    config = dataclasses.replace(SMALL, steps=6, session=EVERY_STEP)
    result = made(tmp_path / "nan", config, nan_after=6)
    good = made(tmp_path / "good", config, interrupt_after=6)
    assert result["steps"] == 3 and "mini loss is not finite in step 4" in result["stopped"]
    assert (tmp_path / "nan" / "mesh.glb").read_bytes() == (
        tmp_path / "good" / "mesh.glb"
    ).read_bytes()
    assert good["scores"] == result["scores"]
    assert not running.is_finished(config, tmp_path / "nan")
    monkeypatch.setattr(optimize, "load_encoders", lambda config: (Moments(nan_after=3),))
    assert optimize.main(["--prompt", "a red stick", "--output", str(tmp_path / "x"), *FLAGS]) == 1
    assert "mini loss is not finite in step" in capsys.readouterr().err


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SessionSettings(every=-1), "every is -1; expected 0"),
        (SessionSettings(checkpoint_seconds=-1.0), "checkpoint_seconds is -1.0; expected 0"),
        (SessionSettings(checkpoint_seconds=float("nan")), "checkpoint_seconds is nan"),
        (SessionSettings(viewer_port=0), "viewer_port is 0; expected 1 to 65535"),
    ],
)
def test_bad_session_settings_are_named(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        check_session(settings)


@pytest.mark.parametrize(("name", "package"), [("viewer", "viser"), ("tensorboard", "tensorboard")])
def test_a_missing_extra_is_named(monkeypatch, name, package) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    remedy = rf'{name} needs the package {package}.*live\]", or leave --{name} out'
    with pytest.raises(ValueError, match=remedy):
        check_session(SessionSettings(**{name: True}))


def test_settings_compare_by_their_full_names() -> None:
    left = {"a": 1, "b": {"c": [1, 2], "d": 0}}
    right = {"a": 1, "b": {"c": [1, 3]}, "e": None}
    assert checkpoint.differences(left, right) == [
        "b.c is [1, 3] there, [1, 2] here",
        "b.d is not set there, 0 here",
        "e is None there, not set here",
    ]
    assert checkpoint.differences(left, left) == []
