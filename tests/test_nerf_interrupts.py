"""Runs that are killed or interrupted, a full disk, a loss that is no number: nothing is lost."""

import dataclasses
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_runs import EVERY_STEP, FLAGS, RESUMED, ROOT, SMALL, Moments, lasting, made

import checkpoint
import loop
import optimize
import run as running
from interrupts import asked_to_stop
from session import SessionSettings


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


def test_what_a_killed_run_left_half_written_is_removed(tmp_path) -> None:
    (tmp_path / "previews").mkdir()
    half = [".checkpoint.pt.123", ".mesh.glb.4567", "previews/.step-000003.png.89"]
    others = [".hidden", ".mesh.glb.backup.123", "mesh.glb.123", ".other.txt.123"]
    for name in half + others:
        (tmp_path / name).write_text("half")
    made(tmp_path)
    assert not [name for name in half if (tmp_path / name).exists()]
    assert not [name for name in others if not (tmp_path / name).exists()]


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
    assert not running.is_finished(config, (Moments(),), tmp_path / "nan")
    monkeypatch.setattr(optimize, "load_encoders", lambda config: (Moments(nan_after=4),))
    assert optimize.main(["--prompt", "a red stick", "--output", str(tmp_path / "x"), *FLAGS]) == 1
    said = capsys.readouterr().err
    assert "mini loss is not finite in step" in said
    assert f"settings, --start {tmp_path / 'x'} --output ANOTHER under others." in said


def test_nan_between_checkpoints_loses_no_step(tmp_path) -> None:
    """The last good step is kept at once, and a tower that works goes on as if nothing had been."""
    seldom = SessionSettings(checkpoint_seconds=1e9)
    config = dataclasses.replace(SMALL, steps=6, session=seldom)
    whole = made(tmp_path / "whole", config)
    assert made(tmp_path / "nan", config, nan_after=6)["steps"] == 3
    assert checkpoint.step_in(tmp_path / "nan") == 3
    again = dataclasses.replace(config, session=dataclasses.replace(seldom, resume=True))
    resumed = made(tmp_path / "nan", again)
    assert resumed["resumed_from"] == 3 and lasting(resumed) == lasting(whole)


def test_nan_while_the_field_grows_leaves_the_checkpoint_before(tmp_path) -> None:
    """Steps 3 and 5 of six begin with a finer field."""
    seldom = SessionSettings(checkpoint_seconds=1e9)
    config = dataclasses.replace(SMALL, steps=6, session=seldom)
    result = made(tmp_path, config, nan_after=7)
    assert result["steps"] == 4 and checkpoint.step_in(tmp_path) == 0
    assert made(tmp_path, dataclasses.replace(config, session=RESUMED))["steps"] == 6


def test_a_step_of_the_optimizer_into_nothing_keeps_the_state_before(tmp_path, monkeypatch) -> None:
    config = dataclasses.replace(SMALL, steps=6, session=EVERY_STEP)
    good = made(tmp_path / "good", config, interrupt_after=6)
    real = loop.set_rates

    def rates(optimizer, settings, progress) -> None:
        real(optimizer, settings, progress)
        if progress > 0.5:  # the fourth of six steps
            optimizer.param_groups[0]["lr"] = float("nan")

    monkeypatch.setattr(loop, "set_rates", rates)
    result = made(tmp_path / "nan", config)
    assert result["steps"] == 3 and "not finite after a step of the optimizer" in result["stopped"]
    assert (tmp_path / "nan" / "mesh.glb").read_bytes() == (
        tmp_path / "good" / "mesh.glb"
    ).read_bytes()
    assert good["scores"] == result["scores"]


HAZE = ["--field.begin", "haze", "--field.shift", "-20", "--warm-start.shades", "0"]


def haze(folder: Path, monkeypatch, *flags: str, **tower) -> int:
    """Exit code of a run in which nothing forms."""
    monkeypatch.setattr(optimize, "load_encoders", lambda config: (Moments(**tower),))
    command = ["--prompt", "a red stick", "--output", str(folder), *FLAGS, *HAZE, *flags]
    return optimize.main([*command, "--checkpoint-seconds", "0"])


@pytest.mark.parametrize(
    ("tower", "code", "stopped", "remedy"),
    [
        ({}, 1, "", "What there is of step 3 is saved, beside"),
        ({"interrupt_after": 3}, 130, "interrupted", "--resume goes on from its step 2"),
        ({"nan_after": 3}, 1, "the mini loss is not finite", "--resume goes on from its step 2"),
    ],
    ids=["to the end", "interrupted", "nan"],
)
def test_what_has_not_formed_leaves_pictures_and_the_reason(
    tmp_path, monkeypatch, capsys, tower, code, stopped, remedy
) -> None:
    assert haze(tmp_path, monkeypatch, **tower) == code
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["mesh"] is None and result["stopped"].startswith(stopped)
    assert result["problems"][0].startswith("no mesh: field is empty")
    assert {"turntable.gif", "preview.png"} <= set(result["files"])
    said = capsys.readouterr()
    assert "no mesh yet" in said.out and "no mesh: field is empty" in said.err
    assert str(tmp_path / checkpoint.FILE) in said.err
    assert remedy in said.err


def test_what_has_not_formed_is_not_passed_off_as_finished(tmp_path, monkeypatch, capsys) -> None:
    assert haze(tmp_path, monkeypatch) == 1
    assert haze(tmp_path, monkeypatch, "--resume") == 1
    said = capsys.readouterr()
    assert "finished before" not in said.out and said.err.count("no mesh: field is empty") == 2
