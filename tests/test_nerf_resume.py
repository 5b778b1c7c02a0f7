"""Checkpoints: a run that was stopped goes on and ends as if never stopped."""

import dataclasses

import pytest
import trimesh
from small_runs import EVERY_STEP, FLAGS, RESUMED, SMALL, Moments, lasting, made, replaced

import checkpoint
import optimize
import run as running
from formats import read_glb
from session import SessionSettings

PARTS = ("a red stick @ right:weight=2", "a blue disk @ ball -0.4 0 0 0.4:avoid=a red disk")


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
    assert checkpoint.step_in(tmp_path / "stopped") == 9


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


def test_a_tower_with_other_weights_is_another_run(tmp_path, monkeypatch) -> None:
    """As after mini was trained anew: its checkpoints and results do not pass for this one's."""
    config = dataclasses.replace(SMALL, session=EVERY_STEP)
    weights = {"mini": "0123"}
    monkeypatch.setattr(running, "tower_digests", lambda config, encoders: dict(weights))
    stopped = made(tmp_path / "stopped", config, interrupt_after=5)
    assert stopped["settings"]["digests"] == weights
    made(tmp_path / "whole", config)
    assert running.is_finished(config, (Moments(),), tmp_path / "whole")
    weights["mini"] = "4567"
    message = r"of other settings: digests\.mini is '0123' there, '4567' here"
    with pytest.raises(ValueError, match=message):
        made(tmp_path / "stopped", dataclasses.replace(config, session=RESUMED))
    with pytest.raises(ValueError, match=message):
        running.is_finished(config, (Moments(),), tmp_path / "whole")


def test_seconds_add_up_over_all_attempts(tmp_path) -> None:
    config = dataclasses.replace(SMALL, steps=5, session=EVERY_STEP)
    stopped = made(tmp_path, config, interrupt_after=6)
    resumed = made(tmp_path, dataclasses.replace(config, session=RESUMED))
    assert resumed["seconds_by_part"]["warm start"] >= stopped["seconds_by_part"]["warm start"]
    assert resumed["seconds"] >= sum(resumed["seconds_by_part"].values()) - 0.05


def test_resume_from_the_command_line(tmp_path, monkeypatch, capsys) -> None:
    """It completes what is there, begins where nothing is, and knows what is finished."""
    towers = [Moments(interrupt_after=5), Moments(), last := Moments()]
    monkeypatch.setattr(optimize, "load_encoders", lambda config: (towers.pop(0),))
    command = ["--prompt", "a red stick", "--output", str(tmp_path / "out"), *FLAGS, "--resume"]
    command += ["--checkpoint-seconds", "0"]
    assert optimize.main(command) == 130
    assert "stopped after 2 steps" in capsys.readouterr().out
    assert optimize.main(command) == 0
    assert "done in" in capsys.readouterr().out
    assert optimize.main(command) == 0
    assert "finished before" in capsys.readouterr().out
    assert last.calls == 0


def test_files_may_be_asked_for_differently(tmp_path) -> None:
    config = dataclasses.replace(SMALL, session=EVERY_STEP)
    made(tmp_path, config, interrupt_after=5)
    other = replaced(config, pictures={"frames": 3}, mesh={"formats": ("stl",)})
    resumed = dataclasses.replace(other, session=RESUMED, device="cpu:0")
    assert made(tmp_path, resumed)["resumed_from"] == 2
    assert (tmp_path / "mesh.stl").exists() and not (tmp_path / "mesh.glb").exists()


def test_without_resume_it_begins_anew(tmp_path) -> None:
    config = dataclasses.replace(SMALL, session=EVERY_STEP)
    made(tmp_path, config, interrupt_after=5)
    result = made(tmp_path, dataclasses.replace(config, session=SessionSettings(every=2)))
    assert result["resumed_from"] is None
    names = {path.name for path in (tmp_path / "previews").iterdir()}
    assert names == {"step-000000.png", "step-000002.png", "step-000003.png"}


def test_a_finished_run_is_rendered_again_without_steps(tmp_path) -> None:
    config = dataclasses.replace(SMALL, session=EVERY_STEP)
    made(tmp_path, config)
    before = (tmp_path / "mesh.glb").read_bytes()
    other = replaced(config, pictures={"frames": 3}, mesh={"formats": ("glb", "stl")})
    again = replaced(other, session={"render_only": True})
    tower = Moments()
    result = optimize.run(again, (tower,), tmp_path, quiet=True)
    assert result["steps"] == result["resumed_from"] == 3 and tower.calls == 1  # the final score
    assert (tmp_path / "mesh.glb").read_bytes() == before and (tmp_path / "mesh.stl").exists()


def test_only_a_finished_run_can_be_rendered_again(tmp_path, monkeypatch, capsys) -> None:
    config = dataclasses.replace(SMALL, session=EVERY_STEP)
    again = replaced(config, session={"render_only": True})
    with pytest.raises(ValueError, match=r"render_only needs all 3 steps, .* holds no checkpoint"):
        made(tmp_path / "none", again)
    made(tmp_path / "half", config, interrupt_after=5)
    with pytest.raises(ValueError, match="holds a checkpoint of step 2; leave --render-only out"):
        made(tmp_path / "half", again)
    monkeypatch.setattr(optimize, "load_encoders", lambda config: (Moments(),))
    command = ["--prompt", "a red stick", "--output", str(tmp_path / "whole"), *FLAGS]
    assert optimize.main(command) == 0
    turntable = tmp_path / "whole" / "turntable.gif"
    turntable.unlink()
    assert optimize.main([*command, "--render-only"]) == 0 and turntable.exists()
