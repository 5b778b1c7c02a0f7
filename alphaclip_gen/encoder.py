"""The friendly front of a tower: pictures, regions and texts in; embeddings and scores out."""

import difflib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from .alpha import check_alpha
from .framing import as_image, check_image, preprocess
from .pictures import Picture
from .sources import SHIPPED
from .vision import AlphaCLIPModel, pixel_values

logger = logging.getLogger(__name__)

EMBEDDED = ("mini",)
"""Towers that are shipped inside the package."""


@dataclass(frozen=True)
class RegionFeatures:
    """What a tower says of regions.

    Attributes:
        embedding: unit vectors in the space shared with texts.
        tokens: the patches' features of the last layer, row by row, class token left out.
    """

    embedding: Float[Tensor, "regions channels"]
    tokens: Float[Tensor, "regions patches width"]


class RegionEncoder:
    """An Alpha-CLIP with its tokenizer.

    >>> encoder = RegionEncoder.from_pretrained("mini")
    >>> box = alpha_from_box((10, 10, 40, 50), size=(64, 64))
    >>> encoder.score("scene.png", ["a red cone", "a blue torus"], box)
    """

    def __init__(self, model: AlphaCLIPModel, tokenizer: PreTrainedTokenizerBase):
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike = "mini", device: str | torch.device = "cpu"
    ) -> "RegionEncoder":
        """The encoder of a shipped name or of a folder that transformers saved.

        Raises:
            FileNotFoundError: neither a shipped name nor a folder with a config.json.
        """
        folder = SHIPPED / name_or_path if str(name_or_path) in EMBEDDED else Path(name_or_path)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"guidance model {str(name_or_path)!r} is neither a shipped name "
                f"({', '.join(EMBEDDED)}) nor a folder with config.json, model.safetensors and a "
                f"tokenizer, as save_pretrained() writes them."
            )
        try:
            with _no_progress_bars():
                model, report = cast(
                    tuple[AlphaCLIPModel, dict],
                    AlphaCLIPModel.from_pretrained(
                        folder, dtype=torch.float32, output_loading_info=True
                    ),
                )
        except RuntimeError as error:  # transformers' word for weights of another shape
            raise ValueError(f"{folder} does not hold an Alpha-CLIP with a text tower.") from error
        wrong = {key: sorted(report[key]) for key in ("missing_keys", "unexpected_keys")}
        if any(wrong.values()):
            raise ValueError(f"{folder} does not hold an Alpha-CLIP with a text tower: {wrong}.")
        module: torch.nn.Module = model  # transformers' own `to` is typed as a plain function
        module.to(device)
        return cls(model, AutoTokenizer.from_pretrained(folder))

    @property
    def device(self) -> torch.device:
        """Where the tower's weights are."""
        return self.model.device

    @property
    def size(self) -> int:
        """Side in pixels of the square pictures that the tower sees."""
        side = self.model.config.vision_config.image_size
        assert isinstance(side, int)
        return side

    @property
    def logit_scale(self) -> float:
        """What similarities are multiplied by before a softmax over texts."""
        return self.model.logit_scale.exp().item()

    def embed(
        self,
        image: Float[Tensor, "images 3 height width"],
        alpha: Float[Tensor, "alphas 1 height width"] | None = None,
        geometry: str = "squash",
    ) -> Float[Tensor, "batch channels"]:
        """Unit embeddings, differentiable in image and alpha.

        Args:
            image: pixels in [0, 1], any size.
            alpha: alpha map of the same size; None attends everywhere. One image with N alphas
                (N regions of a picture) and N images with one alpha are both fine.
            geometry: how the picture is framed (see `preprocess`).
        """
        return F.normalize(self._forward(image, alpha, geometry).pooler_output, dim=-1)

    def encode(
        self,
        pictures: Picture | list[Picture] | tuple[Picture, ...],
        regions: Tensor | Sequence[Tensor | None] | None = None,
        geometry: str = "pad",
    ) -> RegionFeatures:
        """The features of regions of one picture, or of one region each of several pictures.

        Args:
            pictures: anything that `as_image` takes, or a list of it.
            regions: an alpha map (its batch counts), or a list of them and of None (the whole
                picture). For one picture all are its regions; for several, one each.
        """
        several = pictures if isinstance(pictures, list | tuple) else [pictures]
        images = [one[None] for picture in several for one in as_image(picture)]
        alphas = _as_list(regions, len(images))
        if len(images) == 1:
            images = images * len(alphas)
        if len(alphas) != len(images):
            raise ValueError(
                f"got {len(alphas)} regions for {len(images)} pictures; expected one region for "
                f"each picture, or any number for a single one."
            )
        framed = [
            preprocess(image.to(self.device), alpha, self.size, geometry)
            for image, alpha in zip(images, alphas, strict=True)
        ]
        with torch.no_grad():
            image = torch.cat([image for image, _ in framed])
            output = self._forward(image, torch.cat([alpha for _, alpha in framed]))
        tokens = output.last_hidden_state[:, 1:]
        return RegionFeatures(F.normalize(output.pooler_output, dim=-1), tokens)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts channels"]:
        """Unit embeddings of texts; words that are unknown or cut off are logged as a warning."""
        for text in texts:
            if not text.strip():
                raise ValueError("a text is empty; expected words, such as 'a red cone'.")
            self._warn_of_lost_words(text)
        tokens = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self._context,
            return_tensors="pt",
        ).to(self.device)
        output = self.model.get_text_features(
            tokens.input_ids, attention_mask=tokens.attention_mask
        )
        return F.normalize(output.pooler_output, dim=-1)

    def score(
        self,
        pictures: Picture | list[Picture] | tuple[Picture, ...],
        texts: Sequence[str],
        regions: Tensor | Sequence[Tensor | None] | None = None,
        geometry: str = "pad",
    ) -> Float[Tensor, "regions texts"]:
        """How likely each text names each region: rows sum to one (arguments as in `encode`)."""
        similarity = self.encode(pictures, regions, geometry).embedding @ self.embed_texts(texts).T
        return (self.logit_scale * similarity).softmax(-1)

    def _forward(self, image: Tensor, alpha: Tensor | None, geometry: str = "squash") -> Any:
        check_image(image)
        framed, framed_alpha = preprocess(image, alpha, self.size, geometry)
        given = None if alpha is None else framed_alpha
        return self.model.get_image_features(pixel_values(framed, given))

    @property
    def _context(self) -> int:
        return self.model.config.text_config.max_position_embeddings

    def _warn_of_lost_words(self, text: str) -> None:
        encoded = self.tokenizer(text, return_offsets_mapping=True)
        ids, spans = encoded["input_ids"], encoded["offset_mapping"]
        unknown = [
            text[start:end]
            for token, (start, end) in zip(ids, spans, strict=True)
            if token == self.tokenizer.unk_token_id and end > start
        ]
        for word in unknown:
            known = [w for w in self.tokenizer.get_vocab() if not w.startswith("<")]
            close = difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.5)
            hint = f"the closest known words are {', '.join(close)}" if close else "nothing is near"
            logger.warning("%r in %r is not a word of this model; %s.", word, text, hint)
        if len(ids) > self._context:
            cut = spans[self._context - 1][0]
            logger.warning(
                "%r is longer than the model's %d tokens; cut off: %r.",
                text,
                self._context,
                text[cut:].strip(),
            )


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """transformers shows a bar for a file that is read in a blink: not while this holds."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _as_list(regions: Tensor | Sequence[Tensor | None] | None, pictures: int) -> list:
    """One (1, 1, height, width) alpha map, or None, for each region."""
    if regions is None:
        return [None] * pictures
    if isinstance(regions, Tensor):
        return list(check_alpha(regions).split(1))
    parts = [[None] if region is None else check_alpha(region).split(1) for region in regions]
    return [alpha for part in parts for alpha in part]
