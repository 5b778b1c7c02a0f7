"""What a run can't go on with, and what can't be asked of a session: clear errors."""

import dataclasses
import os

import pytest
import torch
from small_runs import EVERY_STEP, RESUMED, SMALL, made, replaced

import checkpoint
from session import SessionSettings, check_session


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
    with pytest.raises(ValueError, match=f"checkpoint.pt' {message}.*begin anew without --resume"):
        made(tmp_path, dataclasses.replace(SMALL, session=RESUMED))


def test_a_checkpoint_runs_nothing(tmp_path) -> None:
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "broken-in"),))

    torch.save({"edition": 1, "field": Evil()}, tmp_path / checkpoint.FILE)
    with pytest.raises(ValueError, match="can't be read"):
        made(tmp_path, dataclasses.replace(SMALL, session=RESUMED))
    assert not (tmp_path / "broken-in").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"start": {"color": [0, 0, 0]}},
        {"start": None},
        {"settings": ["seed"]},
        {"step": "two"},
        {"more": 1},
    ],
)
def test_a_checkpoint_of_another_make_is_named(tmp_path, change) -> None:
    made(tmp_path, dataclasses.replace(SMALL, session=EVERY_STEP), interrupt_after=5)
    path = tmp_path / checkpoint.FILE
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    with pytest.raises(ValueError, match=r"checkpoint.pt' can't be read: .*begin anew without --r"):
        made(tmp_path, dataclasses.replace(SMALL, session=RESUMED))
    assert checkpoint.step_in(tmp_path) is None


def test_a_checkpoint_with_other_grids_than_its_settings_say_is_named(tmp_path) -> None:
    made(tmp_path, dataclasses.replace(SMALL, session=EVERY_STEP), interrupt_after=5)
    path = tmp_path / checkpoint.FILE
    content = torch.load(path, weights_only=True)
    torch.save({**content, "field": {"density": torch.zeros(1, 1, 3, 3, 3)}}, path)
    with pytest.raises(ValueError, match=r"checkpoint.pt does not fit its own settings: .*Remove"):
        made(tmp_path, dataclasses.replace(SMALL, session=RESUMED))


def test_of_another_edition(tmp_path) -> None:
    torch.save({"edition": 99}, tmp_path / checkpoint.FILE)
    wanted = f"is of edition 99; expected {checkpoint.EDITION}"
    with pytest.raises(ValueError, match=wanted):
        made(tmp_path, dataclasses.replace(SMALL, session=RESUMED))


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
