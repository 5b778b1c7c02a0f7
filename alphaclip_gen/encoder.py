"""The friendly front of a tower: pictures, regions and texts in; embeddings and scores out."""

import difflib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.functional import normalize
from transformers import BatchEncoding, PreTrainedTokenizerBase

from .alpha import check_alpha
from .checkpoints import make_model, make_processor, text_side
from .framing import as_image, preprocess, whole_geometry
from .half_tower import HALF, HalfTower
from .pictures import Picture
from .processor import AlphaCLIPImageProcessor
from .sources import PathLike, read_checkpoint
from .tokenizer import load_tokenizer
from .vision import AlphaCLIPModel, heeds_alpha

logger = logging.getLogger(__name__)
_MOST_WARNINGS = 8


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
    """An Alpha-CLIP with its tokenizer and its way to see pictures.

    Args:
        model: is frozen, and put in evaluation mode.
        tokenizer: of its text tower.
        processor: tells its normalization and how to frame pictures; CLIP's by default.

    >>> encoder = RegionEncoder.from_pretrained("mini")
    >>> box = alpha_from_box((10, 10, 40, 50), size=(64, 64))
    >>> encoder.score("scene.png", ["a red cone", "a blue torus"], box)
    """

    def __init__(
        self,
        model: AlphaCLIPModel,
        tokenizer: PreTrainedTokenizerBase,
        processor: AlphaCLIPImageProcessor | None = None,
    ):
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.processor = processor or AlphaCLIPImageProcessor.for_side(self.size)
        self._half: HalfTower | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: PathLike = "mini",
        pretrained: PathLike | None = None,
        *,
        text: PathLike | None = None,
        subfolder: str = "",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "RegionEncoder":
        """The encoder of a shipped name, or of any checkpoint with a text tower.

        Args:
            name_or_path: as in `load_tower`: a file, folder, Hub id, published or shipped name.
            pretrained: as in `load_tower`: open_clip's tag or file.
            text: as in `load_model`: the CLIP that brings the text tower, where there is none.
            subfolder: as in `load_tower`.
            device: where it runs.
            dtype: of the weights.

        Raises:
            FileNotFoundError: nothing bears the name, or its tokenizer is nowhere.
            ValueError: damaged, incomplete, of another size, or without a text tower.

        >>> RegionEncoder.from_pretrained("ViT-L-14.pt")
        >>> RegionEncoder.from_pretrained("clip_l14_grit20m_fultune_2xe", text="ViT-L-14.pt")
        >>> RegionEncoder.from_pretrained("ViT-B-32", "laion2b_s34b_b79k", device="cuda")
        """
        checkpoint = read_checkpoint(name_or_path, pretrained, subfolder)
        words = text_side(checkpoint, text)
        model = make_model(checkpoint, words, dtype)
        if not heeds_alpha(model):
            logger.warning("%s has no alpha weights: regions change nothing.", checkpoint.source)
        torch.nn.Module.to(model, device)  # transformers' own is typed as a plain function
        return cls(model, load_tokenizer(words), make_processor(checkpoint))

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

    @property
    def geometry(self) -> str:
        """How pictures are framed where a call does not say: as in training, but nothing is lost.

        Towers trained on squashed pictures get those; others "pad", which keeps the aspect as
        CLIP's own "center" does, but cuts off no region.
        """
        processor = self.processor
        if processor.geometry != "center":
            return processor.geometry
        size: Any = processor.size
        return "squash" if size.height and not processor.do_center_crop else "pad"

    def embed(
        self,
        image: Float[Tensor, "images 3 height width"],
        alpha: Float[Tensor, "alphas 1 height width"] | None = None,
        geometry: str | None = None,
        side: int | None = None,
    ) -> Float[Tensor, "batch channels"]:
        """Unit embeddings, differentiable in image and alpha.

        On a CPU under autocast in bfloat16 they come from a `HalfTower`, which is faster; its
        weights are copied at the first such call.

        Args:
            image: pixels in [0, 1], any size.
            alpha: alpha map of the same size; None attends everywhere. One image with N alphas
                (N regions of a picture) and N images with one alpha are both fine.
            geometry: how the picture is framed (see `preprocess`); None is `self.geometry`. A
                whole picture is padded by "region".
            side: in pixels, of what the tower sees; `self.size` if None. Its position embeddings
                are interpolated; fewer patches make it faster. What is beyond whole patches is not
                seen.
        """
        framed, region = self._framed(image, alpha, geometry, side)
        values = self._pixel_values(framed, None if alpha is None else region)
        return F.normalize(self._pooled(values), dim=-1)

    def encode(
        self,
        pictures: Picture | list[Picture] | tuple[Picture, ...],
        regions: Tensor | Sequence[Tensor | None] | None = None,
        geometry: str | None = None,
    ) -> RegionFeatures:
        """The features of regions of one picture, or of one region each of several pictures.

        Args:
            pictures: anything that `as_image` takes, or a list of it.
            regions: an alpha map (its batch counts), or a list of them and of None (the whole
                picture). For one picture all are its regions; for several, one each.
            geometry: as in `embed`.
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
            self._framed(
                image.to(self.device), None if alpha is None else alpha.to(self.device), geometry
            )
            for image, alpha in zip(images, alphas, strict=True)
        ]
        with torch.no_grad():
            image = torch.cat([image for image, _ in framed])
            values = self._pixel_values(image, torch.cat([alpha for _, alpha in framed]))
            output = self.model.get_image_features(values)
        tokens = output.last_hidden_state[:, 1:]
        return RegionFeatures(F.normalize(output.pooler_output, dim=-1), tokens)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts channels"]:
        """Unit embeddings of texts; words that are unknown or cut off are logged as a warning."""
        if isinstance(texts, str) or not texts:
            raise ValueError(f"texts is {texts!r}; expected a list of one text or more.")
        if not all(text.strip() for text in texts):
            raise ValueError("a text is empty; expected words, such as 'a red cone'.")
        self._warn_of_lost_words(texts)
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
        geometry: str | None = None,
    ) -> Float[Tensor, "regions texts"]:
        """How likely each text names each region: rows sum to one (arguments as in `encode`)."""
        names = self.embed_texts(texts)
        similarity = self.encode(pictures, regions, geometry).embedding @ names.T
        return (self.logit_scale * similarity).softmax(-1)

    def _framed(
        self, image: Tensor, alpha: Tensor | None, geometry: str | None, side: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Image and alpha of the tower's size; a whole picture has no region to cut out."""
        geometry = geometry or self.geometry
        geometry = whole_geometry(geometry) if alpha is None else geometry
        return preprocess(image, alpha, self.size if side is None else side, geometry)

    def _pixel_values(self, framed: Tensor, alpha: Tensor | None) -> Tensor:
        """What `preprocess` framed, as the tower takes it."""
        processor = self.processor
        values = normalize(framed, processor.image_mean, processor.image_std)
        if alpha is None:
            return values
        return torch.cat([values, alpha.to(values.dtype) - 1], dim=1)  # stored as in `vision`

    def _pooled(self, values: Tensor) -> Tensor:
        """Embeddings, not of unit length, of pictures of any side."""
        on_cpu = values.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if on_cpu and torch.get_autocast_dtype("cpu") == HALF:
            if self._half is None:
                self._half = HalfTower(self.model)
            return self._half(values)
        output = self.model.get_image_features(values, interpolate_pos_encoding=True)
        return output.pooler_output

    @property
    def _context(self) -> int:
        return self.model.config.text_config.max_position_embeddings

    def _unknown_words(self, text: str, encoded: BatchEncoding) -> list[str]:
        """Words without a token; for a tower that learned whole words, also those in pieces."""
        pieces: dict[int, list[int]] = {}
        for index, word in enumerate(encoded.word_ids()):
            if word is not None:
                pieces.setdefault(word, []).append(index)
        whole = self.tokenizer.init_kwargs.get("knows_whole_words_only", False)
        ids, spans = encoded["input_ids"], encoded["offset_mapping"]
        return [
            text[spans[places[0]][0] : spans[places[-1]][1]]
            for places in pieces.values()
            if (whole and len(places) > 1)
            or any(ids[place] == self.tokenizer.unk_token_id for place in places)
        ]

    def _warn_of_lost_words(self, texts: Sequence[str]) -> None:
        """Nothing; the first warnings are logged, and how many there are beside them."""
        lost = [warning for text in texts for warning in self._lost_words(text)]
        for warning in lost[:_MOST_WARNINGS]:
            logger.warning(warning())
        if len(lost) > _MOST_WARNINGS:
            logger.warning("%d more words are unknown or cut off.", len(lost) - _MOST_WARNINGS)

    def _lost_words(self, text: str) -> list[Callable[[], str]]:
        """Makes what to say of a text's words that are cut off, then of each unknown one.

        Looking for the closest words takes time, so it is left until the warning is shown.
        """
        encoded = self.tokenizer(text, return_offsets_mapping=True, verbose=False)
        ids, spans = encoded["input_ids"], encoded["offset_mapping"]
        said = list[Callable[[], str]]()
        if len(ids) > self._context:
            cut = text[spans[self._context - 1][0] :].strip()
            said.append(
                lambda: (
                    f"{_short(text)} is longer than the model's {self._context} tokens; cut off: "
                    f"{_short(cut, 200)}."
                )
            )
        said += [
            partial(self._unknown, word, text)
            for word in dict.fromkeys(self._unknown_words(text, encoded))
        ]
        return said

    def _unknown(self, word: str, text: str) -> str:
        return f"{word!r} in {_short(text)} is not a word of this model; {self._hint(word)}."

    def _hint(self, word: str) -> str:
        vocabulary = list(self.tokenizer.get_vocab())
        ends = [token.removesuffix("</w>") for token in vocabulary if token.endswith("</w>")]
        known = [token for token in ends or vocabulary if len(token) > 2 and token[0] != "<"]
        close = difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.5)
        return f"the closest known words are {', '.join(close)}" if close else "nothing is near"


def _short(text: str, most: int = 80) -> str:
    """The text in quotes, its middle left out where it has more than so many characters."""
    half = most // 2
    return repr(text if len(text) <= most else f"{text[:half]} ... {text[-half:]}")


def _as_list(regions: Tensor | Sequence[Tensor | None] | None, pictures: int) -> list:
    """One (1, 1, height, width) alpha map, or None, for each region."""
    if regions is None:
        return [None] * pictures
    if isinstance(regions, Tensor):
        return list(check_alpha(regions).split(1))
    parts = [[None] if region is None else check_alpha(region).split(1) for region in regions]
    return [alpha for part in parts for alpha in part]
