"""Packages: what is downloaded is what was pinned, and reading one writes nothing."""

import base64
import hashlib
import io
import tarfile
import urllib.request

import pytest

from alphaclip_gen.mini import packages
from alphaclip_gen.mini.packages import Package, fetch, read_members


def archive(files: dict[str, bytes]) -> bytes:
    """A .tgz of these files, and of a link that leads out of it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, contents in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(contents)
            tar.addfile(member, io.BytesIO(contents))
        link = tarfile.TarInfo("package/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return buffer.getvalue()


def pinned(contents: bytes) -> Package:
    digest = base64.b64encode(hashlib.sha512(contents).digest()).decode()
    return Package("@artists/faces", "1.2.3", f"sha512-{digest}")


def test_names_are_those_of_npm():
    package = pinned(b"")
    assert package.archive == "artists-faces-1.2.3.tgz"
    assert package.url == "https://registry.npmjs.org/@artists/faces/-/faces-1.2.3.tgz"


def test_an_archive_in_the_folder_is_verified_and_not_downloaded_again(tmp_path):
    package = pinned(b"the drawings")
    (tmp_path / package.archive).write_bytes(b"the drawings")
    assert fetch(package, tmp_path).read_bytes() == b"the drawings"
    (tmp_path / package.archive).write_bytes(b"other drawings")
    with pytest.raises(ValueError, match=r"has integrity sha512-.*expected sha512-.*Delete"):
        fetch(package, tmp_path)


def test_without_npm_the_registry_is_asked(tmp_path, monkeypatch):
    package = pinned(b"the drawings")
    asked = []

    def answer(url, timeout):
        asked.append(url)
        return io.BytesIO(b"the drawings")

    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    monkeypatch.setattr(urllib.request, "urlopen", answer)
    folder = tmp_path / "new"
    assert fetch(package, folder).read_bytes() == b"the drawings"
    assert asked == [package.url]
    assert [path.name for path in folder.iterdir()] == [package.archive]


def test_a_wrong_download_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(b"forged"))
    with pytest.raises(ValueError, match="do not use it"):
        fetch(pinned(b"the drawings"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_failing_npm_says_what_to_do(tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setattr(packages.shutil, "which", lambda name: str(npm))
    with pytest.raises(
        OSError, match=r"npm pack @artists/faces@1.2.3 failed: no network.*put http"
    ):
        fetch(pinned(b""), tmp_path / "cache")


def test_only_wanted_files_are_read_and_links_never(tmp_path):
    path = tmp_path / "faces.tgz"
    path.write_bytes(archive({"package/a.png": b"a", "package/b.txt": b"b", "package/../c": b"c"}))
    assert read_members(path, lambda name: name.endswith(".png")) == {"a.png": b"a"}
    assert set(read_members(path, lambda name: True)) == {"a.png", "b.txt", "../c"}
    assert [item.name for item in tmp_path.iterdir()] == ["faces.tgz"]


def test_huge_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "_LARGEST_MEMBER", 3)
    path = tmp_path / "faces.tgz"
    path.write_bytes(archive({"package/a.png": b"abcd"}))
    with pytest.raises(ValueError, match=r"'a.png' in faces.tgz has 4 bytes; expected at most 3"):
        read_members(path, lambda name: True)
