"""Masked CLIP guidance: pull any differentiable picture toward a text, through color and alpha.

    encoder = RegionEncoder.from_pretrained("mini")
    guide = Guidance(encoder, "a red cone")
    color, opacity = augment(*render(scene), generator=generator)
    background = random_backgrounds(len(color), color.shape[-2:], generator=generator)
    guide(composite(color, opacity, background), opacity).backward()

`color` is premultiplied by `opacity`: what a volume renderer makes, or `picture * mask`. Pictures
are prepared by `augmentation` and `backgrounds`; what most callers need of them is here too.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from .augmentation import augment as augment
from .augmentation import composite as composite
from .backgrounds import random_backgrounds as random_backgrounds

logger = logging.getLogger(__name__)

LossName = Literal["auto", "cosine", "spherical", "contrastive"]
Guide = Callable[[Tensor, Tensor | None], Tensor]
"""(image, alpha) -> scalar loss."""


@runtime_checkable
class Encoder(Protocol):
    """What guidance needs of a tower; `RegionEncoder` has it, a few lines give it to any other."""

    @property
    def logit_scale(self) -> float: ...

    def embed(self, image: Tensor, alpha: Tensor | None = None) -> Tensor: ...

    def embed_texts(self, texts: list[str]) -> Tensor: ...


# Losses: functions of unit-length embeddings.


def cosine_loss(
    embedding: Float[Tensor, "batch channels"], target: Float[Tensor, "#batch channels"]
) -> Float[Tensor, ""]:
    """Mean of 1 - cosine: 0 when aligned, 2 when opposite."""
    return (1 - (embedding * target).sum(dim=1)).mean()


def spherical_loss(
    embedding: Float[Tensor, "batch channels"], target: Float[Tensor, "#batch channels"]
) -> Float[Tensor, ""]:
    """Mean of half the squared angle in radians: 0 when aligned, pi^2 / 8 at a right angle.

    The angle comes from the chord, exact where the cosine is flat (Crowson, k-diffusion and
    VQGAN-CLIP). Its gradient is cut off at exactly opposite vectors, where it is infinite.
    """
    half_chord = torch.linalg.vector_norm(embedding - target, dim=1) / 2
    return (2 * half_chord.clamp(max=1 - 1e-6).asin() ** 2).mean()


def contrastive_loss(
    embedding: Float[Tensor, "batch channels"],
    target: Float[Tensor, "#batch channels"],
    negatives: Float[Tensor, "negatives channels"],
    scale: float,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of naming the target among the negatives; `scale` multiplies cosines."""
    right = (embedding * target).sum(dim=1, keepdim=True)
    logits = scale * torch.cat([right, embedding @ negatives.T], dim=1)
    return (logits.logsumexp(dim=1) - logits[:, 0]).mean()


# Guides


class Guidance:
    """An encoder and the cached embedding of one prompt: call it for the loss of pictures.

    Args:
        encoder: a `RegionEncoder`, or anything with its `embed`, `embed_texts`, `logit_scale`.
        prompt: what the region should become.
        negatives: other texts that it should not be; those that the encoder can't tell from the
            prompt (cosine above `same_above`) are left out.
        loss: "cosine", "spherical" or "contrastive"; "auto" is contrastive with negatives,
            cosine without.
        cosine_weight: of the cosine loss that is added to the contrastive one.
        scale: of the cosines in the contrastive loss and in the score; the encoder's own if None.
        same_above: see `negatives`.
        avoid: more negatives, which the caller named one by one: those that are left out are logged
            as a warning.

    Raises:
        ValueError: the prompt is empty, or "contrastive" is asked for without negatives.
    """

    def __init__(
        self,
        encoder: Encoder,
        prompt: str,
        negatives: Sequence[str] = (),
        loss: LossName | str = "auto",
        cosine_weight: float = 1.0,
        scale: float | None = None,
        same_above: float = 0.97,
        avoid: Sequence[str] = (),
    ) -> None:
        if not prompt.strip():
            raise ValueError('prompt is empty; expected a description such as "a red cone".')
        others = [text for text in dict.fromkeys((*negatives, *avoid)) if text != prompt]
        with torch.no_grad():
            embeddings = encoder.embed_texts([prompt, *others])
        keep = embeddings @ embeddings[0] <= same_above
        keep[0] = True
        self.encoder = encoder
        self.embeddings = embeddings[keep]
        self.texts = [text for text, kept in zip([prompt, *others], keep, strict=True) if kept]
        if lost := [text for text in dict.fromkeys(avoid) if text not in self.texts[1:]]:
            logger.warning(
                "%s can't be told from the prompt %r by this model (cosine above %g), so it is not "
                "avoided; name something less alike.",
                ", ".join(map(repr, lost)), prompt, same_above,
            )  # fmt: skip
        self.cosine_weight = cosine_weight
        self.scale = encoder.logit_scale if scale is None else scale
        self.loss = _choose_loss(loss, len(self.texts) - 1)

    @property
    def prompt(self) -> str:
        return self.texts[0]

    def __call__(
        self,
        image: Float[Tensor, "batch 3 height width"],
        alpha: Float[Tensor, "batch 1 height width"] | None = None,
    ) -> Float[Tensor, ""]:
        """Loss of the pictures; gradients flow to `image` and, where given, to `alpha`."""
        return self.loss_of(self.encoder.embed(image, alpha))

    def loss_of(
        self,
        embedding: Float[Tensor, "batch channels"],
        target: Float[Tensor, "#batch channels"] | None = None,
    ) -> Float[Tensor, ""]:
        """Loss of pictures that are already embedded.

        `target` stands for the prompt's embedding where it is given, as for the view from behind.
        """
        target = self.embeddings[:1] if target is None else target
        negatives = self.embeddings[1:]
        if self.loss == "cosine":
            return cosine_loss(embedding, target)
        if self.loss == "spherical":
            return spherical_loss(embedding, target)
        loss = contrastive_loss(embedding, target, negatives, self.scale)
        return loss + self.cosine_weight * cosine_loss(embedding, target)

    @torch.no_grad()
    def probabilities(
        self, embedding: Float[Tensor, "batch channels"]
    ) -> Float[Tensor, "batch texts"]:
        """Of each of `texts` (the prompt first) to be the right name; not differentiable."""
        return (self.scale * embedding @ self.embeddings.T).softmax(dim=1)

    def score_of(self, embedding: Float[Tensor, "batch channels"]) -> Float[Tensor, " batch"]:
        """For display: probability of the prompt among the negatives, or its cosine without any."""
        if len(self.texts) == 1:
            return (embedding.detach() @ self.embeddings.T)[:, 0]
        return self.probabilities(embedding)[:, 0]

    @torch.no_grad()
    def score(
        self,
        image: Float[Tensor, "batch 3 height width"],
        alpha: Float[Tensor, "batch 1 height width"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """`score_of` the pictures; not differentiable."""
        return self.score_of(self.encoder.embed(image, alpha))


def weighted(guides: Sequence[Guide], weights: Sequence[float]) -> Guide:
    """One guide from several, of any encoders: the weighted sum of their losses."""
    if not guides or len(guides) != len(weights):
        raise ValueError(
            f"weights has {len(weights)} values for {len(guides)} guides; "
            "expected one weight a guide, and at least one guide."
        )

    def guide(image: Tensor, alpha: Tensor | None = None) -> Tensor:
        losses = [w * one(image, alpha) for one, w in zip(guides, weights, strict=True)]
        return torch.stack(losses).sum()

    return guide


def _choose_loss(loss: str, negatives: int) -> str:
    if loss not in get_args(LossName):
        raise ValueError(
            f'loss is {loss!r}; expected "auto", "cosine", "spherical" or "contrastive".'
        )
    if loss == "contrastive" and not negatives:
        raise ValueError(
            'loss is "contrastive" without negatives; give other texts as `negatives`, '
            'or use "cosine".'
        )
    if loss == "auto":
        return "contrastive" if negatives else "cosine"
    return loss
