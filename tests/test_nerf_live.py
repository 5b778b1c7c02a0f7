"""Watching a run: bar, previews, contact sheet over time, TensorBoard, viewer."""

import dataclasses
import importlib.machinery
import io
import itertools
import runpy
import sys
import types
import urllib.request
from pathlib import Path

import pytest
import torch
import trimesh
from PIL import Image

import live
import optimize
from field import FieldSettings, VoxelField
from guides import make_guides
from loop import Clock, Progress
from loop import optimize as optimized
from session import SessionSettings
from surface import NothingFormed
from viewer import HOST, open_viewer

STAND_IN = runpy.run_path(str(Path(__file__).with_name("stand_in_tower.py")))
Moments, SMALL, FLAGS = STAND_IN["Moments"], STAND_IN["SMALL"], STAND_IN["FLAGS"]


@pytest.fixture(scope="module")
def progresses() -> list[Progress]:
    """The first and last of a run; their field is the same object."""
    guides = make_guides(SMALL, (Moments(),))
    generator = torch.Generator().manual_seed(0)
    return list(optimized(SMALL, guides, generator, Clock(torch.device("cpu"))))


def made(folder: Path, session: SessionSettings, **tower) -> dict:
    config = dataclasses.replace(SMALL, session=session)
    return optimize.run(config, (Moments(**tower),), folder)


# On the terminal


def test_the_bar_counts_and_shows_score_and_losses(progresses, capsys) -> None:
    with live.progress_bar("a red stick", 3) as watch:
        for now in progresses:
            watch(now)
    line = capsys.readouterr().err.split("\r")[-1]
    assert "a red stick" in line and "3/3" in line
    assert f"score={progresses[-1].score:.3f}" in line
    assert f"mini={progresses[-1].losses['mini']:.3f}" in line
    with live.progress_bar("a red stick", 3, hidden=True) as watch:
        watch(progresses[-1])
    assert capsys.readouterr().err == ""


def test_a_bar_that_goes_on_counts_from_there(progresses, capsys) -> None:
    with live.progress_bar("a red stick", 3, first=2) as watch:
        watch(progresses[-1])
    assert "3/3" in capsys.readouterr().err.split("\r")[-1]


def test_losses_that_are_nothing_are_not_shown(progresses) -> None:
    losses = {"mini": 1.23456, "floor": 0.0, "ball": 0.0001}
    now = dataclasses.replace(progresses[-1], score=0.5, losses=losses)
    assert live.figures(now) == {"score": "0.500", "mini": "1.235"}


# On disk


@pytest.mark.parametrize(
    ("every", "steps"), [(None, [0, 1, 2, 3]), (2, [0, 2, 3]), (5, [0, 3]), (0, [])]
)
def test_previews_and_the_sheet_over_time(tmp_path, every, steps) -> None:
    result = made(tmp_path, SessionSettings(every=every))
    found = sorted(path.name for path in tmp_path.glob("previews/*"))
    assert found == [f"step-{step:06d}.png" for step in steps]
    assert (tmp_path / "timeline.png").exists() == bool(steps)
    assert ("timeline.png" in result["files"]) == bool(steps)


def test_previews_are_about_eight() -> None:
    steps = {steps: SessionSettings().interval(steps) for steps in (1, 5, 200, 15000)}
    assert steps == {1: 1, 5: 1, 200: 29, 15000: 2143}
    assert SessionSettings(every=0).interval(200) == 0


def test_the_sheet_over_time_has_its_ends_and_an_even_choice(tmp_path, monkeypatch) -> None:
    (tmp_path / "previews").mkdir()
    for step in range(0, 101, 2):
        picture = Image.new("RGB", (16, 8), (step, 0, 0))
        picture.save(tmp_path / "previews" / f"step-{step:06d}.png")
    taken = {}
    monkeypatch.setattr(live, "timeline", lambda pictures: taken.update(pictures) or b"sheet")
    assert live.write_timeline(tmp_path, most=6) == "timeline.png"
    assert list(taken) == [0, 20, 40, 60, 80, 100]
    assert [picture.getpixel((0, 0))[0] for picture in taken.values()] == list(taken)
    assert (tmp_path / "timeline.png").read_bytes() == b"sheet"


def test_watching_changes_nothing(tmp_path) -> None:
    folders = [tmp_path / "seen", tmp_path / "unseen"]
    for folder, every in zip(folders, (1, 0), strict=True):
        folder.mkdir()
        made(folder, SessionSettings(every=every, checkpoint_seconds=0.0 if every else 1e9))
    assert (folders[0] / "mesh.glb").read_bytes() == (folders[1] / "mesh.glb").read_bytes()


# TensorBoard


def test_tensorboard_gets_every_term_and_goes_on(tmp_path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    session = SessionSettings(tensorboard=True, every=1, checkpoint_seconds=0)
    made(tmp_path, session, interrupt_after=5)
    result = made(tmp_path, dataclasses.replace(session, resume=True))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]
    assert {f"losses/{name}" for name in result["losses"]} <= set(events.Tags()["scalars"])
    assert events.Scalars("losses/mini")[-1].value == pytest.approx(
        result["losses"]["mini"], abs=1e-4
    )
    with Image.open(io.BytesIO(events.Images("object")[-1].encoded_image_string)) as picture:
        assert picture.size == (256, 128)


# The viewer


class FakeServer:
    """The part of viser's server that is used."""

    def __init__(self, **arguments) -> None:
        self.arguments, self.shown, self.stopped, self.up = arguments, [], False, ""
        self.scene = self.gui = self
        self.words = types.SimpleNamespace(content="")

    def set_up_direction(self, direction: str) -> None:
        self.up = direction

    def add_markdown(self, text: str) -> types.SimpleNamespace:
        return self.words

    def add_glb(self, name: str, data: bytes) -> None:
        self.shown.append((name, data))

    def get_port(self) -> int:
        return self.arguments["port"]

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def fake_viser(monkeypatch) -> list[FakeServer]:
    servers: list[FakeServer] = []
    module = types.ModuleType("viser")
    module.__spec__ = importlib.machinery.ModuleSpec("viser", None)
    module.ViserServer = lambda **kw: servers.append(FakeServer(**kw)) or servers[-1]
    monkeypatch.setitem(sys.modules, "viser", module)
    return servers


def test_the_viewer_shows_the_mesh_of_the_results(
    tmp_path, fake_viser, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(optimize, "load_encoders", lambda config: (Moments(),))
    command = ["--prompt", "a red stick", "--output", str(tmp_path), *FLAGS, "--faces", "None"]
    assert optimize.main([*command, "--viewer", "--viewer-port", "8123"]) == 0
    assert "viewer: http://127.0.0.1:8123" in capsys.readouterr().out
    (server,) = fake_viser
    assert server.arguments["host"] == HOST == "127.0.0.1" and server.up == "+y"
    assert server.stopped and "### a red stick" in server.words.content
    assert "step 3 of 3" in server.words.content and "**score**" in server.words.content
    name, data = server.shown[-1]
    assert name == "/object" and data == (tmp_path / "mesh.glb").read_bytes()
    assert trimesh.load(io.BytesIO(data), file_type="glb").geometry


def test_the_viewer_takes_a_tenth_of_the_time(fake_viser, progresses, monkeypatch) -> None:
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr("viewer.time.monotonic", lambda: clock.now)

    def slow(volume):
        clock.now += 2.0
        raise NothingFormed("field is empty")

    monkeypatch.setattr("viewer.extract", slow)
    shown = []
    with open_viewer(8123) as viewer:
        for _ in range(100):
            clock.now += 1.0
            before = clock.now
            viewer.show("a red stick", 200, dataclasses.replace(progresses[-1], step=7))
            shown += [before] if clock.now > before else []
        last = clock.now
        viewer.show("a red stick", 200, dataclasses.replace(progresses[-1], step=200))
        assert clock.now == last + 2.0  # the last step is always shown
    gaps = [b - a for a, b in itertools.pairwise(shown)]
    assert len(gaps) > 3 and min(gaps) >= 20.0 and max(gaps) <= 22.0


def test_the_real_viewer_is_on_the_loopback_only(progresses) -> None:
    pytest.importorskip("viser")
    with open_viewer(18080) as viewer:
        viewer.show("a red stick", 3, progresses[-1])
        assert viewer.address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(viewer.address, timeout=10) as page:
            assert page.status == 200 and b"<html" in page.read()
        addresses = listening(int(viewer.address.rpartition(":")[2]))
    assert addresses == {"0100007F"}


def listening(port: int) -> set[str]:
    """Addresses on which a port is open, as Linux lists them: hexadecimal, last byte first."""
    table = Path("/proc/net/tcp")
    if not table.exists():
        pytest.skip("no list of open ports on this system")
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    places = [row[1].split(":") for row in rows if row[3] == "0A"]
    return {address for address, number in places if int(number, 16) == port}


def test_a_missing_viewer_is_found_before_the_work(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("session.importlib.util.find_spec", lambda name: None)
    command = ["--prompt", "a red stick", "--output", str(tmp_path / "out"), "--viewer"]
    assert optimize.main(command) == 2
    assert 'pip install "alphaclip-gen[live]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_field_without_a_surface_is_waited_for(fake_viser, progresses) -> None:
    settings = FieldSettings(density_sizes=(8,), color_sizes=(2,), grow_at=())
    density = torch.full((1, 1, 8, 8, 8), -60.0)
    empty = VoxelField(density, torch.zeros(1, 3, 2, 2, 2), settings)
    with open_viewer(8123) as viewer:
        viewer.show("a red stick", 3, dataclasses.replace(progresses[0], field=empty))
        assert fake_viser[0].shown == []
        assert "a red stick" in fake_viser[0].words.content
