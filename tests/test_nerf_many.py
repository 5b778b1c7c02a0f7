"""Several processes: prompts handed out, views shared out; two of them on this machine's CPU."""

import dataclasses
import json
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import many
import optimize
from cameras import random_views
from many import Place
from run import run
from shares import WHOLE, Shares

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "tests" / "stand_in_tower.py"
STAND_IN = runpy.run_path(str(PROGRAM))
Moments, SMALL, FLAGS = STAND_IN["Moments"], STAND_IN["SMALL"], STAND_IN["FLAGS"]
gradients = STAND_IN["gradients"]
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def alone(monkeypatch) -> None:
    for name in (name for names in many.PLACES for name in (*names, *VARIABLES)):
        monkeypatch.delenv(name, raising=False)


def environment(**more: str) -> dict[str, str]:
    path = f"{ROOT}{os.pathsep}{ROOT / 'nerf'}"
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


def two_processes(*arguments: str) -> tuple[list[int], str, str]:
    """Exit codes, and all that both said, of the program in two processes that know each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), *arguments],
            env=environment(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
                MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
            ),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=600) for process in processes]
    codes = [process.returncode for process in processes]
    return codes, "".join(out for out, _ in said), "".join(error for _, error in said)


def result_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


# Prompts


def test_two_processes_share_a_file_of_prompts(tmp_path) -> None:
    """Each prompt once; the failure is listed at the end by the first; the rest is skipped then."""
    file, output = tmp_path / "prompts.txt", tmp_path / "out"
    prompts = ["a red stick", "a teapot", "a blue disk", "a green stick", "a red disk"]
    file.write_text("\n".join(prompts))
    command = ["--prompts", str(file), "--output", str(output), *FLAGS]
    codes, out, errors = two_processes(*command)
    assert codes == [1, 0], errors
    assert out.count("done in") == 4 and "[process 1]" in out + errors
    assert errors.count("1 of 5 prompts failed:\n  a teapot: KeyError: 'teapot'") == 1
    for prompt in set(prompts) - {"a teapot"}:
        assert result_of(output / prompt.replace(" ", "-"))["prompt"] == prompt
    before = {path: path.stat().st_mtime_ns for path in output.glob("*/mesh.glb")}
    for name in ("result.json", "mesh.glb"):
        (output / "a-red-disk" / name).unlink()
    assert len(before) == 4 and optimize_main(command) == 1
    after = {path: path.stat().st_mtime_ns for path in output.glob("*/mesh.glb")}
    changed = [path.parent.name for path in after if after[path] != before[path]]
    assert after.keys() == before.keys() and changed == ["a-red-disk"]


def optimize_main(command: list[str]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimize, "load_encoders", lambda config: (Moments(),))
        return optimize.main(command)


def test_numbers_are_dealt_out_once() -> None:
    store = torch.distributed.HashStore()
    first, second = many.numbers(5, store), many.numbers(5, store)
    assert [next(first), next(second), next(first)] == [0, 1, 2]
    assert list(second) == [3, 4] and list(first) == []
    assert list(many.numbers(3, None)) == [0, 1, 2]


def test_the_first_process_hears_of_every_failure() -> None:
    store = torch.distributed.HashStore()
    many.hand_in({"a teapot": "lost"}, Place(1, 2), store)
    many.hand_in({}, Place(0, 2), store)
    assert many.collect(Place(0, 2), store) == {"a teapot": "lost"}


@pytest.mark.slow
def test_accelerate_launch_spreads_prompts(tmp_path) -> None:
    pytest.importorskip("accelerate")
    file = tmp_path / "prompts.txt"
    file.write_text("a red stick\na blue disk\na green stick\n")
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launcher += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    launcher += ["--dynamo_backend", "no", "--main_process_port", "0"]
    command = [str(PROGRAM), "--prompts", str(file), "--output", str(tmp_path / "out"), *FLAGS]
    found = subprocess.run(
        [*launcher, *command], env=environment(), capture_output=True, text=True, timeout=900
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("done in") == 3
    assert len(list((tmp_path / "out").glob("*/result.json"))) == 3


# Places


@pytest.mark.parametrize("names", many.PLACES)
def test_launchers_tell_the_place(monkeypatch, names) -> None:
    assert many.find_place() == Place(0, 1, 0)
    for name, value in zip(names, ("3", "8", "1"), strict=True):
        monkeypatch.setenv(name, value)
    place = many.find_place()
    assert place == Place(3, 8, 1) and not place.leads and place.label == "[process 3] "


def test_processes_need_an_address() -> None:
    assert many.meet(Place()) is None
    with pytest.raises(ValueError, match="2 processes were started without an address"):
        many.meet(Place(1, 2))


def test_shares_have_to_come_out_even() -> None:
    message = "split_views is 1 in 2 processes; expected a multiple"
    with pytest.raises(ValueError, match=message), many.joined(Place(0, 2), 1, "cpu"):
        pass


def test_each_process_of_a_machine_has_its_gpu(monkeypatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    many.use_own_gpu("cuda", Place(6, 8, 2))
    many.use_own_gpu("cuda:1", Place(6, 8, 2))
    many.use_own_gpu("cpu", Place(6, 8, 2))
    many.use_own_gpu("cuda", Place())
    assert chosen == [2]


# Views


def test_shares_of_one_step_are_all_of_it() -> None:
    generator = torch.Generator().manual_seed(0)
    cameras = random_views(6, SMALL.cameras, generator)
    shares = Shares(3, range(3))
    parts = [shares.of(cameras, share).position for share, _ in shares.parts(generator)]
    assert torch.equal(torch.cat(parts), cameras.position)
    draws = [torch.rand(1, generator=own).item() for _, own in shares.parts(generator)]
    assert len(set(draws)) == 3


def test_one_share_draws_the_numbers_of_none() -> None:
    a, b = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    ((share, own),) = WHOLE.parts(a)
    assert share == 0 and own is a and torch.equal(torch.rand(2, generator=own),
                                                   torch.rand(2, generator=b))  # fmt: skip


def assert_same(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        largest = float(a.abs().max())
        assert largest > 1e-4 and torch.allclose(a, b, rtol=1e-3, atol=1e-5 * largest)


def test_shares_in_turn_are_all_views_at_once() -> None:
    """The mean of their gradients, where nothing is left to chance, is that of all views."""
    assert_same(gradients(WHOLE, chance=False), gradients(Shares(2, range(2)), chance=False))


def test_two_processes_have_the_gradient_of_one(tmp_path) -> None:
    """Averaged over gloo: that of one process with all views at once, or with shares in turn."""
    codes, _, errors = two_processes("gradients", str(tmp_path / "gradients.pt"))
    assert codes == [0, 0], errors
    found = torch.load(tmp_path / "gradients.pt")
    assert_same(gradients(WHOLE, chance=False), found[False])
    assert_same(gradients(Shares(2, range(2))), found[True])


def test_what_is_done_is_kept_when_another_process_is_gone(tmp_path, monkeypatch) -> None:
    """Between two steps, as far as this process can tell: the next sum never comes."""
    sums = []

    def all_reduce(values: torch.Tensor) -> None:
        sums.append(values)
        if len(sums) > 3:  # a step sums gradients of density and color, and the numbers
            raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    monkeypatch.setattr(torch.distributed, "broadcast", lambda values, src: None)
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", lambda box, src: None)
    config = dataclasses.replace(SMALL, prompt="a red stick", views=2, split_views=2)
    result = run(config, (Moments(),), tmp_path, Shares(2, (0,), spread=True), quiet=True)
    assert result["stopped"] == "another process ended before the run was done."
    assert result["steps"] == 1 and (tmp_path / "mesh.glb").is_file()


def test_two_processes_make_what_one_makes(tmp_path) -> None:
    """One process takes the shares in turn; of several, the first writes the files."""
    one, two = tmp_path / "one", tmp_path / "two"
    command = ["--prompt", "a red stick", *FLAGS, "--split-views", "2"]
    assert optimize_main([*command, "--output", str(one)]) == 0
    codes, _, errors = two_processes(*command, "--output", str(two))
    assert codes == [0, 0], errors
    results = [result_of(folder) for folder in (one, two)]
    assert results[0]["losses"] == pytest.approx(results[1]["losses"], abs=2e-4)
    assert results[0]["scores"]["similarity"] == pytest.approx(
        results[1]["scores"]["similarity"], abs=2e-4
    )
    assert {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()}
