"""The published Alpha-CLIP checkpoints: what to download by hand and where to put it.

They are for research use only (CC BY-NC 4.0). Source: the model zoo of SunzeY/AlphaCLIP.
"""

import os
from dataclasses import dataclass
from pathlib import Path

LICENSE = "CC BY-NC 4.0, research use only"
MODEL_ZOO = "https://github.com/SunzeY/AlphaCLIP/blob/main/model-zoo.md"


@dataclass(frozen=True)
class Architecture:
    """The sizes of one of OpenAI's vision transformers.

    Attributes:
        name: OpenAI's.
        width: channels of a token.
        layers: transformer blocks.
        patch: side in pixels.
        side: of the input picture in pixels.
        projection: channels of the space shared with texts.
        clip: Hub id of OpenAI's CLIP of this architecture, whose text tower goes with it.
    """

    name: str
    width: int
    layers: int
    patch: int
    side: int
    projection: int
    clip: str

    @property
    def clip_file(self) -> str:
        """What OpenAI calls the file of that CLIP, such as ViT-L-14-336px.pt."""
        return f"{self.name.replace('/', '-').replace('@', '-')}.pt"

    @property
    def tokens(self) -> int:
        """Patches and the class token."""
        return (self.side // self.patch) ** 2 + 1

    @property
    def parameters(self) -> int:
        """How many numbers an Alpha-CLIP tower of this architecture holds."""
        block = 12 * self.width**2 + 13 * self.width
        per_channel = 4 * self.patch**2 + self.tokens + 1 + 4 + self.projection
        return self.layers * block + per_channel * self.width


B16 = Architecture("ViT-B/16", 768, 12, 16, 224, 512, "openai/clip-vit-base-patch16")
L14 = Architecture("ViT-L/14", 1024, 24, 14, 224, 768, "openai/clip-vit-large-patch14")
L14_336 = Architecture(
    "ViT-L/14@336px", 1024, 24, 14, 336, 768, "openai/clip-vit-large-patch14-336"
)


@dataclass(frozen=True)
class Published:
    """One published checkpoint.

    Attributes:
        name: of its file, without the ending .pth.
        architecture: of the CLIP it was tuned from; OpenAI's text tower of that name goes with it.
        trained_on: regions with captions.
        drive: its id on Google Drive; the other mirror is gone.
    """

    name: str
    architecture: Architecture
    trained_on: str
    drive: str

    @property
    def file(self) -> str:
        """Name of the file."""
        return f"{self.name}.pth"

    @property
    def url(self) -> str:
        """Page from which a browser downloads it."""
        return f"https://drive.google.com/file/d/{self.drive}/view"

    @property
    def megabytes(self) -> int:
        """Size of its weights in single precision; half as much in half precision."""
        return round(self.architecture.parameters * 4 / 1e6)

    def how_to_get(self, wanted: Path) -> str:
        """What to tell somebody whose file `wanted` is not there."""
        return (
            f"there is no {wanted}. Published Alpha-CLIP checkpoints are downloaded by hand: "
            f"{self.file} ({self.architecture.name}, trained on {self.trained_on}, about "
            f"{self.megabytes} MB in single precision; {LICENSE}) is at {self.url}, listed in "
            f"{MODEL_ZOO}. Put it into {weights_folder()} and load it by its name, or pass its "
            f"path."
        )


_MIM = "GRIT-1M and ImageNet foregrounds"
PUBLISHED = (
    Published("clip_b16_grit1m_fultune_8xe", B16, "GRIT-1M", "16fHEXZ-7bgzcSBHzEz1wXRIZTjQIXm_2"),
    Published("clip_l14_grit1m_fultune_8xe", L14, "GRIT-1M", "1PIhplBnsmSWiJN--TXCCSsiaV6bY9koq"),
    Published(
        "clip_l14_336_grit1m_fultune_8xe", L14_336, "GRIT-1M", "1DeNbUv0lraDxJZItb7shTlvGW6z_Z9Si"
    ),
    Published("clip_b16_grit20m_fultune_2xe", B16, "GRIT-20M", "1cj3cYwrzBivx0h0NzSjlCg9HAd5aTkDW"),
    Published("clip_l14_grit20m_fultune_2xe", L14, "GRIT-20M", "1WykuBYWePriCVeW5lOwBsgxgeBMzb1nd"),
    Published(
        "clip_l14_336_grit_20m_4xe", L14_336, "GRIT-20M", "1dUq1deeLcou26RuxZbBG57m2ALPWev6-"
    ),
    Published("clip_b16_grit+mim_fultune_4xe", B16, _MIM, "11iDlSAYI_BAi1A_Qz6LTWYHNgPe-UY7I"),
    Published("clip_l14_grit+mim_fultune_6xe", L14, _MIM, "1JfzOTvjf0tqBtKWwpBJtjYxdHi-06dbk"),
)
"""Every published checkpoint, in the order of the model zoo."""


def weights_folder() -> Path:
    """Where downloaded checkpoints are looked for: $ALPHACLIP_GEN_WEIGHTS, or a cache folder."""
    chosen = os.environ.get("ALPHACLIP_GEN_WEIGHTS")
    return Path(chosen) if chosen else Path.home() / ".cache" / "alphaclip-gen"


def published(name: str) -> Published | None:
    """The row of a name, with or without .pth; None if there is none."""
    stem = name.removesuffix(".pth")
    return next((row for row in PUBLISHED if row.name == stem), None)
