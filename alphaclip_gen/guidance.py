"""Masked CLIP guidance: pull any differentiable picture toward a text, through color and alpha.

    encoder = RegionEncoder.from_pretrained("mini")
    guide = Guidance(encoder, "a red cone")
    color, opacity = augment(*render(scene), generator=generator)
    background = random_backgrounds(len(color), color.shape[-2:], generator=generator)
    guide(composite(color, opacity, background), opacity).backward()

`color` is premultiplied by `opacity` everywhere in this module: what a volume renderer makes, or
`picture * mask`. Premultiplied pictures can be warped, blurred and resized without dark rims.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LossName = Literal["auto", "cosine", "spherical", "contrastive"]
BackgroundStyle = Literal["flat", "checker", "noise", "mixed"]
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


# Pictures: color premultiplied by opacity.


def composite(
    color: Float[Tensor, "batch 3 height width"],
    opacity: Float[Tensor, "batch 1 height width"],
    background: Float[Tensor, "#batch 3 #height #width"],
) -> Float[Tensor, "batch 3 height width"]:
    """The picture in front of a background; `color` is premultiplied by `opacity`."""
    return color + (1 - opacity) * background


def augment(
    color: Float[Tensor, "batch 3 height width"],
    opacity: Float[Tensor, "batch 1 height width"],
    generator: torch.Generator | None = None,
    strength: float = 1.0,
    shift: float = 0.1,
    zoom: float = 0.15,
    rotation: float = 8.0,
    perspective: float = 0.1,
) -> tuple[Float[Tensor, "batch 3 height width"], Float[Tensor, "batch 1 height width"]]:
    """Color and opacity under one random homography each, zero outside; differentiable in both.

    Args:
        color: premultiplied by opacity.
        opacity: in [0, 1].
        generator: of the random numbers.
        strength: multiplies the four ranges below; 0 leaves the pictures as they are.
        shift: largest shift, as a fraction of the picture's half side.
        zoom: largest change of size, 0.15 for a factor of exp(-0.15) to exp(0.15).
        rotation: largest turn in degrees.
        perspective: largest tilt; 0.1 makes one border 10 % nearer, the opposite one farther.
    """
    if strength == 0:
        return color, opacity
    height, width = color.shape[-2:]
    homography = random_homographies(
        len(color), generator, strength * shift, strength * zoom, strength * rotation,
        strength * perspective, aspect=width / height,
    )  # fmt: skip
    warped = warp(torch.cat([color, opacity], dim=1), homography.to(color))
    return warped[:, :3], warped[:, 3:]


def random_homographies(
    count: int,
    generator: torch.Generator | None,
    shift: float,
    zoom: float,
    rotation: float,
    perspective: float,
    aspect: float = 1.0,
) -> Float[Tensor, "count 3 3"]:
    """Random maps from output to input positions in [-1, 1]^2 (x right, y down); see `augment`."""
    device = generator.device if generator else None
    random = torch.rand(count, 6, generator=generator, device=device) * 2 - 1
    turn, size = random[:, 0] * math.radians(rotation), (random[:, 1] * zoom).exp()
    matrix = torch.eye(3, device=device).repeat(count, 1, 1)
    matrix[:, 0, 0] = matrix[:, 1, 1] = size * turn.cos()
    matrix[:, 0, 1] = -size * turn.sin() / aspect
    matrix[:, 1, 0] = size * turn.sin() * aspect
    matrix[:, :2, 2] = random[:, 2:4] * shift
    matrix[:, 2, :2] = random[:, 4:6] * perspective
    return matrix


def warp(
    picture: Float[Tensor, "batch channels height width"],
    homography: Float[Tensor, "batch 3 3"],
) -> Float[Tensor, "batch channels height width"]:
    """The picture seen through output-to-input homographies; bilinear, zero outside."""
    height, width = picture.shape[-2:]
    x = (torch.arange(width, device=picture.device, dtype=picture.dtype) + 0.5) * 2 / width - 1
    y = (torch.arange(height, device=picture.device, dtype=picture.dtype) + 0.5) * 2 / height - 1
    grid = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1)
    homogeneous = F.pad(grid, (0, 1), value=1.0).reshape(1, -1, 3) @ homography.mT
    positions = homogeneous[..., :2] / homogeneous[..., 2:].clamp(min=1e-3)
    positions = positions.view(-1, height, width, 2)
    return F.grid_sample(picture, positions, mode="bilinear", align_corners=False)


def random_backgrounds(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator | None = None,
    style: BackgroundStyle | str = "flat",
    avoid: Float[Tensor, "3"] | None = None,
) -> Float[Tensor, "count 3 height width"]:
    """Random backgrounds in [0, 1]: flat colors, checkerboards, soft noise, or a mix of the three.

    `avoid` is a color to keep away from: of three random colors the farthest from it is taken.
    They are made on the generator's device.

    Raises:
        ValueError: an unknown style.
    """
    if style not in get_args(BackgroundStyle):
        raise ValueError(f"style is {style!r}; expected one of {get_args(BackgroundStyle)}.")
    device = generator.device if generator else None
    colors = _random_colors(2 * count, generator, device, avoid).view(2, count, 3, 1, 1)
    first, second = colors.expand(2, count, 3, *size)
    if style == "flat":
        return first.contiguous()
    if style == "checker":
        pattern = _checkers(count, size, generator, device)
    elif style == "noise":
        pattern = _soft_noise(count, size, generator, device)
    else:
        kind = torch.randint(3, (count, 1, 1, 1), generator=generator, device=device)
        checkers = _checkers(count, size, generator, device)
        pattern = torch.where(kind == 1, checkers, _soft_noise(count, size, generator, device))
        pattern = torch.where(kind == 0, torch.ones_like(pattern), pattern)
    return pattern * first + (1 - pattern) * second


def _random_colors(
    count: int,
    generator: torch.Generator | None,
    device: torch.device | None,
    avoid: Tensor | None,
) -> Tensor:
    candidates = torch.rand(count, 3, 3, generator=generator, device=device)
    if avoid is None:
        return candidates[:, 0]
    distance = (candidates - avoid.detach().to(candidates)).square().sum(dim=2)
    return candidates[torch.arange(count, device=device), distance.argmax(dim=1)]


def _checkers(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator | None,
    device: torch.device | None,
) -> Tensor:
    cell = torch.randint(4, 17, (count, 1, 1, 1), generator=generator, device=device)
    rows = torch.arange(size[0], device=device).view(1, 1, -1, 1) // cell
    columns = torch.arange(size[1], device=device).view(1, 1, 1, -1) // cell
    return ((rows + columns) % 2).float()


def _soft_noise(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator | None,
    device: torch.device | None,
) -> Tensor:
    noise = torch.rand(count, 1, 6, 6, generator=generator, device=device)
    return F.interpolate(noise, size=size, mode="bicubic", align_corners=False).clamp(0, 1)


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
    ) -> None:
        if not prompt.strip():
            raise ValueError('prompt is empty; expected a description such as "a red cone".')
        others = [text for text in negatives if text != prompt]
        with torch.no_grad():
            embeddings = encoder.embed_texts([prompt, *others])
        keep = embeddings @ embeddings[0] <= same_above
        keep[0] = True
        self.encoder = encoder
        self.embeddings = embeddings[keep]
        self.texts = [text for text, kept in zip([prompt, *others], keep, strict=True) if kept]
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

    def loss_of(self, embedding: Float[Tensor, "batch channels"]) -> Float[Tensor, ""]:
        """Loss of pictures that are already embedded."""
        target, negatives = self.embeddings[:1], self.embeddings[1:]
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
