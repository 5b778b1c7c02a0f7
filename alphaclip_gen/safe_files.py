"""Named tensors out of weight files of any kind, without running code that a file may carry.

safetensors hold no code. Pickles go through `torch.load(weights_only=True)`. TorchScript archives
(OpenAI's CLIP) are programs: here only their tensors are read, by an unpickler that builds nothing
but tensors and inert stand-ins; `torch.jit.load` is never called.
"""

import io
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_BROKEN = (SafetensorError, zipfile.BadZipFile, RuntimeError, EOFError, OSError, KeyError)
_WRAPPERS = ("state_dict", "model", "module")
_NOT_WEIGHTS = {
    b"<": "a web page, probably the download page and not the download",
    b"version https://git-lfs": "a Git LFS pointer; `git lfs pull` fetches the file",
}


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, a saved state dict or a TorchScript archive, on the CPU.

    A training checkpoint that keeps its weights under "state_dict" or "model" is unwrapped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds code or other objects, or no named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights file at {str(path)!r}; check the path.")
    with path.open("rb") as file:
        head = file.read(64)
    for start, what in _NOT_WEIGHTS.items():
        if head.lstrip().startswith(start):
            raise ValueError(f"{str(path)!r} is no weights file but {what}.")
    try:
        if path.suffix == ".safetensors" or head[8:10] == b'{"':
            return load_file(path)
        if head.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                    return dict(_named(_unpickle(archive)))
        return _state_dict(_load(path), path)
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL (\S+)|operand", str(error)):
            raise ValueError(_refusal(path, found[1])) from error
        raise ValueError(_damage(path, error)) from error
    except _BROKEN as error:
        raise ValueError(_damage(path, error)) from error


def _load(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on old pickle protocols; what matters raises
        return torch.load(path, map_location="cpu", weights_only=True)


def _refusal(path: Path, name: str | None) -> str:
    return (
        f"{str(path)!r} is a pickle that holds {name or 'objects'}, not only tensors; it is "
        f"refused, and none of its code was run. Expected safetensors or a saved state dict: where "
        f"the file is trusted, save its weights alone, torch.save(model.state_dict(), path)."
    )


def _damage(path: Path, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    size = path.stat().st_size
    return (
        f"{str(path)!r} is damaged, cut off or no weights file ({size:,} bytes; {reason}). "
        f"Expected safetensors, a state dict of torch.save() or a TorchScript archive; download it "
        f"again."
    )


def _state_dict(loaded: object, path: Path) -> dict[str, Tensor]:
    """The state dict itself, taken out of a training checkpoint when it lies in one."""
    while isinstance(loaded, dict):
        inner = next((key for key in _WRAPPERS if isinstance(loaded.get(key), dict)), None)
        if inner is None:
            break
        loaded = loaded[inner]
    if not isinstance(loaded, dict) or not loaded:
        raise ValueError(
            f"{str(path)!r} holds a {type(loaded).__name__}; expected names with tensors, as "
            f"torch.save(model.state_dict(), path) writes them."
        )
    strange = [key for key, value in loaded.items() if not isinstance(value, Tensor | int)]
    if strange:
        raise ValueError(
            f"{str(path)!r} has entries that are no tensors: {strange[:5]}. Expected a state dict, "
            f"at the top or under one of {_WRAPPERS}."
        )
    return {str(name): torch.as_tensor(value) for name, value in loaded.items()}


class _Module:
    """An inert stand-in for a module of a TorchScript archive: its attributes and nothing else."""

    attributes: dict[str, Any]

    def __setstate__(self, state: object) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _ArchiveUnpickler(pickle.Unpickler):
    """Builds tensors and stand-ins only; every other class is refused before it is looked up."""

    def __init__(self, archive: zipfile.ZipFile, record: str):
        super().__init__(io.BytesIO(archive.read(record)))
        self.archive = archive
        self.root = record.removesuffix("data.pkl")
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch.jit._pickle":  # type tags of lists and dicts, without meaning here
            return lambda value, *_: value
        if f"{module}.{name}" not in _BUILDERS:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return _BUILDERS[f"{module}.{name}"]

    def persistent_load(self, saved: Any) -> Tensor:
        _, dtype, key, *_ = saved
        if key not in self.storages:
            data = bytearray(self.archive.read(f"{self.root}data/{key}"))
            empty = torch.empty(0, dtype=dtype)
            self.storages[key] = torch.frombuffer(data, dtype=dtype) if data else empty
        return self.storages[key]


def _strided(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: object) -> Tensor:
    return storage.as_strided(size, stride, offset)


_BUILDERS = {
    "torch._utils._rebuild_tensor_v2": _strided,
    "collections.OrderedDict": OrderedDict,
}


def _unpickle(archive: zipfile.ZipFile) -> object:
    records = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(records) != 1:
        raise zipfile.BadZipFile(f"{len(records)} records named data.pkl")
    return _ArchiveUnpickler(archive, records[0]).load()


def _named(module: object, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor attribute of a stand-in and of those below it, under its dotted name."""
    if not isinstance(module, _Module):
        raise pickle.UnpicklingError("the archive holds no module")
    for name, value in module.attributes.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Module):
            yield from _named(value, f"{prefix}{name}.")
