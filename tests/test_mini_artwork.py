"""The bank of drawings: how pictures become sprites, and what packages are read for."""

import io
import json
import re
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from alphaclip_gen.mini import artwork
from alphaclip_gen.mini.artwork import (
    HELD_OUT_STYLES,
    STYLES,
    TRAINING_STYLES,
    ArtBank,
    ArtStyle,
    build_art,
    load_art,
    save_art,
    sprite,
)
from alphaclip_gen.mini.concepts import EMOJI
from alphaclip_gen.mini.packages import Package

ROOT = Path(__file__).resolve().parents[1]


def png(color: str, box: tuple[int, int, int, int]) -> bytes:
    """A 32 px picture of one rectangle."""
    picture = Image.new("RGBA", (32, 32))
    ImageDraw.Draw(picture).rectangle(box, fill=color)
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return buffer.getvalue()


def write_archive(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, contents in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(contents)
            tar.addfile(member, io.BytesIO(contents))


def test_styles_are_pinned_and_one_is_held_out():
    assert len(TRAINING_STYLES) >= 5 and HELD_OUT_STYLES == ("fluent",)
    assert not set(HELD_OUT_STYLES) & set(TRAINING_STYLES)
    assert all(style.package.integrity.startswith("sha512-") for style in STYLES)
    assert not [style for style in STYLES if "NC" in style.license or "ND" in style.license]


def test_the_notice_names_every_package_artist_and_license():
    """Two lines each: "Title, by artist. License." and "address, from npm package"."""
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    known = "|".join(re.escape(style.license) for style in STYLES)
    entry = rf"^  .+, by (.+)\. ({known})\b.*\n    .+, from npm (\S+)$"
    named = {package: found for *found, package in re.findall(entry, notice, re.MULTILINE)}
    assert named.keys() == {style.package.name for style in STYLES}
    for style in STYLES:
        artist, license_ = named[style.package.name]
        assert style.artist.split()[0] in artist and license_ == style.license


def test_a_sprite_is_the_visible_part_centered_and_premultiplied():
    """A half-clear red bar, 16 x 4 of 32 px, fills the 60 inner columns and a quarter of them."""
    picture = Image.new("RGBA", (32, 32))
    picture.paste((255, 0, 0, 128), (3, 20, 19, 24))
    made = sprite(picture)
    assert made.shape == (4, 64, 64) and made.dtype == torch.uint8
    rows, columns = (made[3] > 64).nonzero().T
    assert (columns.min(), columns.max()) == (2, 61)
    assert (rows.min(), rows.max()) == (25, 38)  # 15 rows, their edges soft
    assert made[:, 32, 32].tolist() == pytest.approx([128, 0, 0, 128], abs=8)  # Lanczos rings
    with pytest.raises(ValueError, match="no visible pixel"):
        sprite(Image.new("RGBA", (8, 8)))


def test_banks_are_kept_and_refused_when_the_concepts_change(tmp_path, monkeypatch):
    pixels = torch.randint(0, 256, (2, 4, 64, 64), dtype=torch.uint8)
    index = torch.full((len(EMOJI), 2), -1)
    index[0, 1] = 1
    save_art(ArtBank(pixels, index, ("noto", "fluent")), tmp_path / "artwork.safetensors")
    bank = load_art(tmp_path)
    assert torch.equal(bank.pixels, pixels) and torch.equal(bank.index, index)
    assert bank.styles == ("noto", "fluent")
    monkeypatch.setattr(artwork, "EMOJI", EMOJI[:5])
    with pytest.raises(ValueError, match=r"another list of \d+ concepts; expected the 5"):
        load_art(tmp_path)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Three styles of a few emoji: pictures by code point, icons by name, icons renamed."""
    pytest.importorskip("resvg_py")
    heart, dog, cricket = "2764-fe0f", "1f415", "1f997"
    bodies = ("red", "#00f", "#0f0", "#ff0")
    icons = {
        name: {"body": f'<rect x="8" width="16" height="32" fill="{color}"/>'}
        for name, color in zip(("red-heart", "dog-1", "dog-2", "cricket"), bodies, strict=True)
    }
    sets = json.dumps({"icons": icons, "aliases": {"hound": {"parent": "dog-1"}}, "height": 32})
    sets = sets.replace('"height": 32}', '"height": 32, "width": 32}')
    table = [{"unified": heart, "name": "HEAVY BLACK HEART"}, {"unified": dog, "name": "DOG"}]
    names = {"2764": "red-heart", dog: "dog", cricket: "cricket"}
    files = {
        "noto": {
            "emoji.json": json.dumps(table).encode(),
            f"img/{heart}.png": png("red", (4, 4, 11, 11)),
            f"img/{dog}.png": png("blue", (4, 4, 11, 19)),
            "img/0031.png": png("black", (4, 4, 11, 19)),
        },
        "openmoji": {
            "icons.json": sets.encode(),
            "chars.json": json.dumps(names).encode(),
        },
        "own": {"icons.json": sets.encode()},
    }
    for name, contents in files.items():
        write_archive(tmp_path / f"{name}.tgz", contents)
    styles = (
        ArtStyle("noto", "", "", Package("noto", "1", ""), "img"),
        ArtStyle("openmoji", "", "", Package("openmoji", "1", "")),
        ArtStyle("own", "", "", Package("own", "1", ""), None, {"1f415": "dog-2", cricket: None}),
    )
    monkeypatch.setattr(artwork, "STYLES", styles)
    monkeypatch.setattr(artwork, "fetch", lambda package, cache: cache / f"{package.name}.tgz")
    return tmp_path


def test_a_bank_takes_pictures_by_code_point_and_icons_by_name(packages):
    bank = build_art(packages)
    rows = {emoji.code: row for row, emoji in enumerate(EMOJI)}
    held = {code: (bank.index[row] >= 0).tolist() for code, row in rows.items()}
    assert held["2764"] == held["1f415"] == [True, True, True]
    assert held["1f997"] == [False, True, False]
    assert int((bank.index >= 0).sum()) == len(bank.pixels) == 7

    def middle(code: str, style: int) -> list[int]:
        return bank.pixels[bank.index[rows[code], style], :, 32, 32].tolist()

    assert middle("2764", 0) == middle("2764", 1) == [255, 0, 0, 255]
    assert middle("1f415", 1) == [0, 0, 255, 255]
    assert middle("1f415", 2) == [0, 255, 0, 255]
    assert bank.pixels[bank.index[rows["2764"], 1], 3, 32, 12] == 0  # upright bar, half as wide
