"""The towers that guide a run: loading them, one guide of the prompt each, and what they say."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.functional import normalize

from alphaclip_gen import RegionEncoder, preprocess
from alphaclip_gen.guidance import Encoder, Guidance
from alphaclip_gen.mini.captions import all_captions
from looks import AlphaMode, alpha_of
from schedule import stage
from settings import Config, GuideSettings, TowerSettings, parse_guide


@dataclass(frozen=True)
class WeightedGuide:
    """A guide, and how much it counts when."""

    guide: Guidance
    settings: GuideSettings

    def weight(self, progress: float) -> float:
        """Its weight, 0 outside its window."""
        inside = self.settings.start <= progress <= self.settings.end
        return self.settings.weight if inside else 0.0


@dataclass(frozen=True)
class Pull:
    """What the guides say of pictures."""

    losses: dict[str, float]
    """By the model's name, weighted as they enter the sum."""
    score: float
    """Mean score by the first guide that counts now."""
    in_image: Float[Tensor, "batch 3 height width"]
    """Gradient of the sum of losses in the pictures."""
    in_alpha: Float[Tensor, "batch 1 height width"]
    """The same in the opacities; zeros where no guide looks at them."""


def load_encoders(config: Config) -> tuple[RegionEncoder, ...]:
    """The frozen towers that the settings name, on their device.

    Raises:
        FileNotFoundError, ValueError: one of them can't be opened.
    """
    guides = [parse_guide(text) for text in config.guidance]
    keys = [(guide.model, guide.pretrained, guide.text) for guide in guides]
    opened = {
        key: RegionEncoder.from_pretrained(key[0], key[1], text=key[2], device=config.device)
        for key in dict.fromkeys(keys)
    }
    return tuple(opened[key] for key in keys)


def make_guides(config: Config, encoders: Sequence[Encoder]) -> tuple[WeightedGuide, ...]:
    """One guide of the settings' prompt for each tower; mini's world is the negatives of mini."""
    return tuple(
        WeightedGuide(_guide(config, encoder, settings.model), settings)
        for encoder, settings in zip(encoders, map(parse_guide, config.guidance), strict=True)
    )


def _guide(config: Config, encoder: Encoder, model: str) -> Guidance:
    negatives = config.negatives or (all_captions() if model == "mini" else ())
    return Guidance(
        encoder, config.prompt or "", negatives, config.loss, cosine_weight=config.cosine_weight
    )


def pull(
    guides: Sequence[WeightedGuide],
    image: Float[Tensor, "batch 3 height width"],
    opacity: Float[Tensor, "batch 1 height width"],
    alpha: AlphaMode,
    tower: TowerSettings,
    progress: float,
) -> Pull:
    """Losses, score and gradients of all guides that count at this moment of the run.

    Pictures pass through the towers in batches, so memory does not grow with their number.
    """
    parts = [
        _pull_of_batch(guides, some, its_opacity, alpha, tower, progress, len(image))
        for some, its_opacity in zip(
            image.split(tower.batch), opacity.split(tower.batch), strict=True
        )
    ]
    losses = {name: sum(part.losses[name] for part in parts) for name in parts[0].losses}
    return Pull(
        losses,
        sum(part.score for part in parts),
        torch.cat([part.in_image for part in parts]),
        torch.cat([part.in_alpha for part in parts]),
    )


def _pull_of_batch(
    guides: Sequence[WeightedGuide],
    image: Tensor,
    opacity: Tensor,
    mode: AlphaMode,
    tower: TowerSettings,
    progress: float,
    count: int,
) -> Pull:
    """The share that some of `count` pictures have in the losses, which are means."""
    share = len(image) / count
    image, opacity = image.detach().requires_grad_(), opacity.detach().requires_grad_()
    total, losses, scores = image.new_zeros(()), dict[str, float](), list[float]()
    for one in guides:
        weight = one.weight(progress)
        if weight == 0:
            continue
        embedding = embed(one.guide.encoder, image, alpha_of(mode, opacity), tower, progress)
        loss = share * weight * one.guide.loss_of(embedding)
        total = total + loss
        losses[one.settings.name] = losses.get(one.settings.name, 0.0) + loss.item()
        scores.append(share * one.guide.score_of(embedding).mean().item())
    gradients = torch.autograd.grad(total, [image, opacity], materialize_grads=True)
    return Pull(losses, scores[0], *gradients)


def embed(
    encoder: Encoder, image: Tensor, alpha: Tensor | None, tower: TowerSettings, progress: float
) -> Float[Tensor, "batch channels"]:
    """Unit embeddings, at the tower's size that is due and in the precision that is set."""
    scale = tower.scales[stage(tower.grow_at, progress)]
    half = tower.precision == "bfloat16"
    with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
        if scale == 1.0:
            return encoder.embed(image, alpha).float()
        if not isinstance(encoder, RegionEncoder):
            raise TypeError(
                f"tower.scales has {scale:g} for a {type(encoder).__name__}; expected a "
                "RegionEncoder, or 1 only."
            )
        return embed_at(encoder, image, alpha, scaled_side(encoder, scale)).float()


def embed_at(
    encoder: RegionEncoder, image: Tensor, alpha: Tensor | None, side: int
) -> Float[Tensor, "batch channels"]:
    """Unit embeddings of square pictures seen at another side than the tower's own.

    Its position embeddings are interpolated; fewer patches make it faster.
    """
    framed, region = preprocess(image, alpha, side, "squash")
    values = normalize(framed, encoder.processor.image_mean, encoder.processor.image_std)
    if alpha is not None:
        values = torch.cat([values, region.to(values.dtype) - 1], dim=1)
    features = encoder.model.get_image_features(values, interpolate_pos_encoding=True)
    return F.normalize(features.pooler_output, dim=-1)


def scaled_side(encoder: RegionEncoder, scale: float) -> int:
    """Side of the tower's pictures at a scale, in whole patches."""
    patch = encoder.model.config.vision_config.patch_size
    return max(round(scale * encoder.size / patch), 1) * patch


def describe(guides: Sequence[WeightedGuide]) -> list[dict]:
    """The settings of each guide, for result.json."""
    return [dataclasses.asdict(one.settings) for one in guides]
