"""A bank of emoji drawn by others: every concept of `concepts.EMOJI` in several styles.

The drawings are not part of this package. They come from the npm packages that artwork.json pins,
are brought to one size and kept in a cache. NOTICE has their authors and licenses.

Usage: python -m alphaclip_gen.mini.artwork --cache runs/artwork
"""

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path, PurePosixPath

import numpy as np
import torch
import tyro
from jaxtyping import Int, UInt8
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..whole_files import whole_file
from .concepts import EMOJI
from .packages import Package, fetch, read_members

SIDE = 64
"""Height and width of a sprite in pixels; the drawing fills it but for a margin of two."""


@dataclass(frozen=True)
class ArtStyle:
    """One set of drawings.

    Attributes:
        name: what the bank calls it.
        artist: who drew it.
        license: of the drawings, as SPDX writes it.
        package: where it comes from.
        folder: of pictures named by code points; None for an icon set (SVG bodies, named in words).
        renamed: code points -> icon, where an icon set has another name for something, or None
            where its icon of that name is something else.
    """

    name: str
    artist: str
    license: str
    package: Package
    folder: str | None = None
    renamed: Mapping[str, str | None] = field(default_factory=dict)


def _styles() -> tuple[ArtStyle, ...]:
    rows = json.loads(files(__package__).joinpath("artwork.json").read_text(encoding="utf-8"))
    return tuple(
        ArtStyle(
            row["style"],
            row["artist"],
            row["license"],
            Package(row["package"], row["version"], row["integrity"]),
            row["folder"],
            row.get("renamed", {}),
        )
        for row in rows
    )


STYLES = _styles()
HELD_OUT_STYLES = ("fluent",)
"""Never trained on."""
TRAINING_STYLES = tuple(style.name for style in STYLES if style.name not in HELD_OUT_STYLES)


@dataclass(frozen=True)
class ArtBank:
    """Drawings of concepts in styles.

    Attributes:
        pixels: premultiplied RGBA x 255.
        index: the sprite of concept and style, in the order of `EMOJI` and `styles`; -1 for none.
        styles: the styles' names.
    """

    pixels: UInt8[Tensor, "sprites 4 side side"]
    index: Int[Tensor, "concepts styles"]
    styles: tuple[str, ...]


def build_art(cache: Path) -> ArtBank:
    """The bank of all styles, from packages that are downloaded into the cache if need be."""
    archives = {style.name: fetch(style.package, cache) for style in STYLES}
    titles = _titles(archives)
    sprites: list[Tensor] = []
    index = torch.full((len(EMOJI), len(STYLES)), -1)
    for column, style in enumerate(STYLES):
        pictures = _pictures(style, archives[style.name], titles)
        for row, emoji in enumerate(EMOJI):
            if emoji.code in pictures:
                index[row, column] = len(sprites)
                sprites.append(sprite(pictures[emoji.code]))
    return ArtBank(torch.stack(sprites), index, tuple(style.name for style in STYLES))


def load_art(cache: Path) -> ArtBank:
    """The bank in the cache folder; built there the first time.

    Raises:
        ValueError: the cached bank is of other concepts.
    """
    path = cache / "artwork.safetensors"
    if not path.exists():
        save_art(build_art(cache), path)
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["artwork"])
        bank = ArtBank(file.get_tensor("pixels"), file.get_tensor("index"), tuple(about["styles"]))
    if about["concepts"] != [emoji.code for emoji in EMOJI]:
        raise ValueError(
            f"{str(path)!r} was built for another list of {len(about['concepts'])} concepts; "
            f"expected the {len(EMOJI)} of concepts.txt. Delete the file to build it again."
        )
    return bank


def save_art(bank: ArtBank, path: Path) -> None:
    """Write the bank, with the names of its concepts and styles, as one safetensors file."""
    about = {"concepts": [emoji.code for emoji in EMOJI], "styles": bank.styles}
    tensors = {"pixels": bank.pixels, "index": bank.index}
    with whole_file(path) as part:
        save_file(tensors, part, metadata={"artwork": json.dumps(about)})


def sprite(picture: Image.Image, side: int = SIDE) -> UInt8[Tensor, "4 side side"]:
    """A picture's visible part, centered and scaled to fill a square but for a margin of two.

    Args:
        picture: RGBA, not premultiplied.
        side: height and width of the result, which is premultiplied.

    Raises:
        ValueError: nothing is visible.
    """
    box = picture.getchannel("A").point(lambda alpha: 255 * (alpha > 16)).getbbox()
    if box is None:
        raise ValueError("picture has no visible pixel; expected a drawing with an alpha channel.")
    width, height = box[2] - box[0], box[3] - box[1]
    longest = max(width, height)
    square = Image.new("RGBA", (longest, longest))
    square.paste(picture.crop(box), ((longest - width) // 2, (longest - height) // 2))
    inner = np.asarray(square.resize((side - 4, side - 4), Image.Resampling.LANCZOS))
    color, alpha = inner[..., :3].astype(np.float32), inner[..., 3:].astype(np.float32)
    premultiplied = np.concatenate([color * alpha / 255, alpha], axis=2).round().astype(np.uint8)
    return torch.nn.functional.pad(torch.from_numpy(premultiplied).permute(2, 0, 1), (2, 2, 2, 2))


def _pictures(
    style: ArtStyle, archive: Path, titles: dict[str, list[str]]
) -> dict[str, Image.Image]:
    """Code points -> the style's RGBA picture, for those emoji that it has."""
    if style.folder is None:
        return _icons(style, archive, titles)
    members = read_members(archive, lambda name: name.startswith(f"{style.folder}/"))
    codes = {_code(PurePosixPath(name).stem): contents for name, contents in members.items()}
    return {code: _decode(codes[code]) for code in titles if code in codes}


def _icons(style: ArtStyle, archive: Path, titles: dict[str, list[str]]) -> dict[str, Image.Image]:
    """The same from an icon set, which lists things by name."""
    icons = json.loads(read_members(archive, lambda name: name == "icons.json")["icons.json"])
    listed = [*icons["icons"], *icons.get("aliases", {})]
    known = {_letters(name).removesuffix("1"): name for name in reversed(listed)}
    found = {}
    for code, names in titles.items():
        if code in style.renamed:
            name = style.renamed[code]
        else:
            name = next((known[n] for n in map(_letters, names) if n in known), None)
        if name is not None:
            found[code] = _draw(icons, name)
    return found


def _draw(icons: dict, name: str) -> Image.Image:
    """One icon of an Iconify set, 128 pixels high."""
    from resvg_py import svg_to_bytes

    icon = icons["icons"][icons.get("aliases", {}).get(name, {"parent": name})["parent"]]
    left, top, width, height = (
        icon.get(key, icons.get(key, default))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )
    return _decode(svg_to_bytes(svg_string=svg, height=2 * SIDE, skip_system_fonts=True))


def _decode(contents: bytes) -> Image.Image:
    with Image.open(io.BytesIO(contents)) as picture:
        return picture.convert("RGBA")


def _titles(archives: dict[str, Path]) -> dict[str, list[str]]:
    """Code points -> what icon sets call the emoji: its CLDR name, and Unicode's."""
    cldr = json.loads(read_members(archives["openmoji"], lambda n: n == "chars.json")["chars.json"])
    table = json.loads(read_members(archives["noto"], lambda n: n == "emoji.json")["emoji.json"])
    titles: dict[str, list[str]] = {emoji.code: [] for emoji in EMOJI}
    rows = [*cldr.items(), *((row["unified"], row["name"]) for row in table)]
    for code, name in rows:
        if _code(code) in titles:
            titles[_code(code)].append(name)
    return titles


def _code(name: str) -> str:
    """Code points as `EMOJI` writes them: small letters, no variation selector."""
    return name.lower().removesuffix("-fe0f")


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@dataclass(frozen=True)
class Config:
    """Download the drawings and build the bank.

    Attributes:
        cache: folder for the packages and the bank.
    """

    cache: Path = Path("runs/artwork")


def main(config: Config) -> None:
    """Build the bank if need be, and say what it holds."""
    bank = load_art(config.cache)
    for style, column in zip(bank.styles, bank.index.T, strict=True):
        print(f"{style}: {int((column >= 0).sum())} of {len(column)} concepts")


if __name__ == "__main__":
    main(tyro.cli(Config))
