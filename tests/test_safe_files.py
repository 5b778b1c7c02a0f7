"""Reading weight files: what is in them, what is refused, and that no code in them runs."""

import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from alphaclip_gen.safe_files import read_tensors

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16)}


class Bomb:
    """Makes a folder when a careless program unpickles it."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype == value.dtype and torch.equal(got[name], value), name


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("modern", [True, False])
def test_state_dicts_of_torch_save(tmp_path, wrapper, modern):
    saved = {wrapper: WEIGHTS, "epoch": 3, "optimizer": {}} if wrapper else WEIGHTS
    torch.save(saved, tmp_path / "w.pt", _use_new_zipfile_serialization=modern)
    assert_same(read_tensors(tmp_path / "w.pt"), WEIGHTS)


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_safetensors_by_ending_and_by_content(tmp_path, name):
    save_file(WEIGHTS, tmp_path / name)
    assert_same(read_tensors(tmp_path / name), WEIGHTS)


class Archived(nn.Module):
    """Nested, half and single precision, a buffer, shared storage: as OpenAI's archives have."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2).half())
        self.scale = nn.Parameter(torch.tensor(4.6))
        self.register_buffer("input_resolution", torch.tensor(224))
        self.flipped = nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
        self.width: int = 3
        self.sizes: list[int] = [1, 2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks[0](x) * self.scale * len(self.sizes)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("way", ["script", "trace"])
def test_torchscript_archives_are_read_without_running_them(tmp_path, monkeypatch, way):
    model = Archived()
    made = torch.jit.script(model) if way == "script" else torch.jit.trace(model, torch.ones(1, 3))
    torch.jit.save(made, tmp_path / "clip.pt")
    monkeypatch.setattr(torch.jit, "load", None)
    assert_same(read_tensors(tmp_path / "clip.pt"), model.state_dict())


@pytest.mark.parametrize("modern", [True, False])
def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path, modern):
    saved = {**WEIGHTS, "extra": Bomb(tmp_path / "ran")}
    torch.save(saved, tmp_path / "bad.pth", _use_new_zipfile_serialization=modern)
    with pytest.raises(ValueError, match=r"holds \w+\.mkdir.*none of its code was run"):
        read_tensors(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_bare_pickle_with_code_is_refused_and_does_not_run(tmp_path, protocol):
    (tmp_path / "bad.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "ran"), protocol))
    with pytest.raises(ValueError, match=r"refused|damaged"):
        read_tensors(tmp_path / "bad.bin")
    assert not (tmp_path / "ran").exists()


def test_the_bomb_would_go_off_elsewhere(tmp_path):
    """The tests above hold nothing if the code would not run anyway."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "ran")))
    assert (tmp_path / "ran").is_dir()


def test_code_inside_a_torchscript_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
        archive.writestr("clip/constants.pkl", b"")
        archive.writestr("clip/data.pkl", pickle.dumps(Bomb(tmp_path / "ran"), protocol=2))
    with pytest.raises(ValueError, match=r"mkdir.*none of its code was run"):
        read_tensors(tmp_path / "bad.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("part", [0.0, 0.5, 0.95])
def test_truncated_files_are_called_damaged(tmp_path, kind, part):
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    weights = {"a": torch.ones(2000)}
    if kind == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match=r"is damaged, cut off .* bytes; .*download it again"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>Google Drive - Virus scan warning", "a web page, probably"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"just words", "damaged, cut off or no weights file"),
    ],
)
def test_what_people_download_by_mistake_is_named(tmp_path, content, message):
    (tmp_path / "clip.pth").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_tensors(tmp_path / "clip.pth")


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(FileNotFoundError, match="no weights file at"):
            read_tensors(path)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (torch.ones(3), "holds a Tensor; expected names with tensors"),
        ({}, "holds a dict"),
        ({"a": torch.ones(1), "note": "hello"}, r"no tensors: \['note'\]"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, saved, message):
    torch.save(saved, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=message):
        read_tensors(tmp_path / "w.pt")
