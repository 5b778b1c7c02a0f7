"""Published npm packages on disk, checked against pinned hashes, read without unpacking them."""

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

REGISTRY = "https://registry.npmjs.org"
_LARGEST_MEMBER = 64 * 2**20
_LARGEST_PACKAGE = 256 * 2**20


@dataclass(frozen=True)
class Package:
    """One published version, and npm's hash of its archive ("sha512-" and base64)."""

    name: str
    version: str
    integrity: str

    @property
    def archive(self) -> str:
        """The name that `npm pack` gives the archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def url(self) -> str:
        return f"{REGISTRY}/{self.name}/-/{self.name.split('/')[-1]}-{self.version}.tgz"


def fetch(package: Package, folder: Path) -> Path:
    """The package's archive in the folder, downloaded if it is not there, and verified.

    Raises:
        ValueError: the archive is not the one that was pinned.
        OSError: it cannot be downloaded.
    """
    path = folder / package.archive
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            part = Path(scratch) / package.archive
            _download(package, part)
            _verify(package, part)
            os.replace(part, path)
    _verify(package, path)
    return path


def read_members(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The wanted regular files of an npm archive: path inside the package -> contents.

    Nothing is written to the disk, so no name in the archive can lead anywhere.

    Args:
        path: a .tgz archive.
        wanted: says of a path like "img/64/1f436.png" whether to read it.

    Raises:
        ValueError: a wanted file is implausibly large.
    """
    found = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            inner = "/".join(PurePosixPath(member.name).parts[1:])  # without "package/"
            if not (member.isfile() and wanted(inner)):
                continue
            if member.size > _LARGEST_MEMBER:
                raise ValueError(
                    f"{inner!r} in {path.name} has {member.size} bytes; expected at most "
                    f"{_LARGEST_MEMBER}. The package is not what it was: do not use it."
                )
            file = archive.extractfile(member)
            assert file is not None  # it is a regular file
            found[inner] = file.read()
    return found


def _download(package: Package, path: Path) -> None:
    """By npm, which knows proxies and mirrors; without npm, straight from the registry."""
    if npm := shutil.which("npm"):
        command = [npm, "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"]
        done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True)
        if done.returncode or not path.exists():
            raise OSError(
                f"npm pack {package.name}@{package.version} failed: {done.stderr.strip()[-300:]} "
                f"Check the network, or put {package.url} into {str(path.parent.parent)!r}."
            )
        return
    with urllib.request.urlopen(package.url, timeout=60) as answer:
        contents = answer.read(_LARGEST_PACKAGE + 1)
    path.write_bytes(contents)


def _verify(package: Package, path: Path) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    integrity = f"sha512-{base64.b64encode(digest).decode()}"
    if integrity != package.integrity:
        raise ValueError(
            f"{path.name} has integrity {integrity}; expected {package.integrity}. "
            "Delete the file to download it again; if that does not help, do not use it."
        )
