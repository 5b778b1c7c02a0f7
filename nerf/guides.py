"""The towers that guide a run: loading them, one guide of the prompt each, and what they say."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from alphaclip_gen import RegionEncoder, preprocess
from alphaclip_gen.augmentation import harden
from alphaclip_gen.guidance import Encoder, Guidance
from alphaclip_gen.mini.captions import all_captions
from looks import AlphaMode
from parts import parse_part
from settings import Config, GuideSettings, TowerSettings, parse_guide, title

_DIGESTS: WeakKeyDictionary[RegionEncoder, str] = WeakKeyDictionary()
LEAST = 0.003
"""Mean opacity of a part below which a picture is not shown for it: 12 pixels of 64 x 64."""


@dataclass(frozen=True)
class Aim:
    """A text that some of the pictures are shown for: the prompt, or a part's."""

    guide: Guidance
    weight: float = 1.0
    part: str = ""
    """The part's text; none for the prompt."""
    around: Float[Tensor, "directions channels"] | None = None
    """What the prompt is from even directions, counterclockwise from the front."""

    def target(self, azimuth: Tensor) -> Tensor | None:
        """What pictures from azimuths in degrees should be like, if that depends on them."""
        return None if self.around is None else between(self.around, azimuth)


@dataclass(frozen=True)
class WeightedGuide:
    """A guide, and how much it counts when."""

    guide: Guidance
    settings: GuideSettings
    aims: tuple[Aim, ...] = ()
    """In the order of the pictures; the guide alone if there are none."""

    def weight(self, progress: float) -> float:
        """Its weight, 0 outside its window."""
        inside = self.settings.start <= progress <= self.settings.end
        return self.settings.weight if inside else 0.0

    @property
    def aimed(self) -> tuple[Aim, ...]:
        """The aims, one at least."""
        return self.aims or (Aim(self.guide),)

    @property
    def names(self) -> list[str]:
        """What the aims' losses are called: by the model, and by the part."""
        model = self.settings.name
        return [f"{model}: {aim.part}" if aim.part else model for aim in self.aimed]


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


def tower_digests(config: Config, encoders: Sequence[Encoder]) -> dict[str, str]:
    """What tells the towers' weights apart, by their names in the settings.

    Towers that are no `RegionEncoder` are left out.
    """
    guides = map(parse_guide, config.guidance)
    return {
        " ".join(name for name in (guide.model, guide.pretrained, guide.text) if name): digest(one)
        for guide, one in zip(guides, encoders, strict=True)
        if isinstance(one, RegionEncoder)
    }


def digest(encoder: RegionEncoder) -> str:
    """The start of the SHA-256 of all weights, names included; worked out once for an encoder."""
    if encoder not in _DIGESTS:
        found = hashlib.sha256()
        for name, weights in sorted(encoder.model.state_dict().items()):
            found.update(name.encode())
            found.update(weights.cpu().contiguous().view(-1).view(torch.uint8).numpy())
        _DIGESTS[encoder] = found.hexdigest()[:16]
    return _DIGESTS[encoder]


def make_guides(config: Config, encoders: Sequence[Encoder]) -> tuple[WeightedGuide, ...]:
    """One guide of the settings' prompt for each tower; mini's world is the negatives of mini.

    Without a prompt, the guide is of all parts' texts, and only the parts are aimed at.
    """
    return tuple(
        _guide(config, encoder, settings)
        for encoder, settings in zip(encoders, map(parse_guide, config.guidance), strict=True)
    )


def _guide(config: Config, encoder: Encoder, settings: GuideSettings) -> WeightedGuide:
    known = all_captions() if settings.model == "mini" and not config.negatives else ()

    def guide(text: str, avoid: Sequence[str] = ()) -> Guidance:
        others = [other for other in config.negatives if other != text]  # a list for many prompts
        named = (*others, *config.avoid, *avoid)
        return Guidance(encoder, text, known, config.loss, config.cosine_weight, avoid=named)

    parts = [parse_part(text) for text in config.parts]
    aims = [Aim(guide(part.text, part.avoid), part.weight, part.text) for part in parts]
    if config.prompt is None and parts:
        return WeightedGuide(guide(title(config)), settings, tuple(aims))
    whole = guide(config.prompt or "")
    around = None
    if config.view_prompts:
        texts = [text.replace("{}", whole.prompt) for text in config.view_prompts]
        around = encoder.embed_texts(texts)
    return WeightedGuide(whole, settings, (Aim(whole, config.prompt_weight, around=around), *aims))


def between(
    around: Float[Tensor, "directions channels"], azimuth: Float[Tensor, " views"]
) -> Float[Tensor, "views channels"]:
    """Unit embeddings, mixed of the two directions next to each azimuth (degrees, 0 in front)."""
    place = azimuth.to(around).remainder(360) * (len(around) / 360)
    before, way = place.floor().long() % len(around), place.frac()[:, None]
    return F.normalize(torch.lerp(around[before], around[(before + 1) % len(around)], way), dim=1)


def pull(
    guides: Sequence[WeightedGuide],
    image: Float[Tensor, "batch 3 height width"],
    opacity: Float[Tensor, "batch 1 height width"],
    alpha: AlphaMode,
    tower: TowerSettings,
    progress: float,
    azimuth: Float[Tensor, " batch"] | None = None,
) -> Pull:
    """Losses, score and gradients of all guides that count at this moment of the run.

    Pictures pass through the towers in batches, so memory does not grow with their number. Where
    there are several aims, as many pictures of each come one after the other, for the first aim
    first; pictures that hardly show their part are left out.
    """
    azimuth = image.new_zeros(len(image)) if azimuth is None else azimuth.to(image)
    losses = {name: 0.0 for one in guides if one.weight(progress) for name in one.names}
    scores: list[float] = []
    in_image, in_alpha = torch.zeros_like(image), torch.zeros_like(opacity)
    for one in guides:
        if one.weight(progress) == 0:
            continue
        count = len(image) // len(one.aimed)
        seen = _seen(one, opacity)
        score = 0.0
        for rows in seen.split(tower.batch) if len(seen) else ():
            part = _pull_of_batch(
                one, image[rows], opacity[rows], alpha, tower, progress, azimuth[rows],
                rows // count, count,
            )  # fmt: skip
            for name, loss in part.losses.items():
                losses[name] += loss
            score += part.score * len(rows) / len(seen)
            in_image[rows] += part.in_image
            in_alpha[rows] += part.in_alpha
        scores.append(score)
    return Pull(losses, scores[0], in_image, in_alpha)


def _seen(one: WeightedGuide, opacity: Float[Tensor, "batch 1 height width"]) -> Tensor:
    """Indices of the pictures to show: all of the whole, those of a part that show enough of it."""
    least = torch.tensor([LEAST if aim.part else -1.0 for aim in one.aimed])
    least = least.repeat_interleave(len(opacity) // len(one.aimed))
    return torch.nonzero(opacity.mean(dim=(1, 2, 3)) > least.to(opacity))[:, 0]


def _pull_of_batch(
    one: WeightedGuide,
    image: Tensor,
    opacity: Tensor,
    mode: AlphaMode,
    tower: TowerSettings,
    progress: float,
    azimuth: Tensor,
    aim_of: Tensor,
    count: int,
) -> Pull:
    """The share that some pictures have in the losses, which are means over `count` of each aim."""
    image, opacity = image.detach().requires_grad_(), opacity.detach().requires_grad_()
    embedding = embed(one.guide.encoder, image, opacity, mode, tower, progress)
    total, losses, score = embedding.new_zeros(()), dict.fromkeys(one.names, 0.0), 0.0
    for index in aim_of.unique().tolist():
        aim, mine = one.aimed[index], aim_of == index
        found = embedding[mine]
        weight = one.weight(progress) * aim.weight * len(found) / count
        loss = weight * aim.guide.loss_of(found, aim.target(azimuth[mine]))
        total = total + loss
        losses[one.names[index]] += loss.item()
        score += aim.guide.score_of(found).sum().item() / len(image)
    gradients = torch.autograd.grad(total, [image, opacity], materialize_grads=True)
    return Pull(losses, score, *gradients)


def embed(
    encoder: Encoder,
    image: Float[Tensor, "batch 3 height width"],
    opacity: Float[Tensor, "batch 1 height width"],
    mode: AlphaMode,
    tower: TowerSettings,
    progress: float,
) -> Float[Tensor, "batch channels"]:
    """Unit embeddings, at the tower's size that is due and in the precision that is set.

    A tower that is no `RegionEncoder` sees the pictures as they are.
    Alpha is the opacity, or everywhere 1 ("ones"). If "hard", it is made 0 or 1 at that size, since
    resizing would soften its border again.
    """
    scale = tower.scale(progress)
    half = tower.in_bfloat16(image.device)
    alpha = None if mode == "ones" else opacity
    if mode == "hard":
        image, alpha = hardened(encoder, image, opacity, scale)
    with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
        if isinstance(encoder, RegionEncoder):
            return encoder.embed(image, alpha, side=scaled_side(encoder, scale)).float()
        return encoder.embed(image, alpha).float()


def hardened(
    encoder: Encoder, image: Tensor, alpha: Tensor, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Square pictures at the tower's size, where its side is known, with alpha of 0 or 1 there."""
    if isinstance(encoder, RegionEncoder):
        image, alpha = preprocess(image, alpha, scaled_side(encoder, scale), "squash")
    return image, harden(alpha)


def scaled_side(encoder: RegionEncoder, scale: float) -> int:
    """Side of the tower's pictures at a scale, in whole patches."""
    patch = encoder.model.config.vision_config.patch_size
    return max(round(scale * encoder.size / patch), 1) * patch


def describe(guides: Sequence[WeightedGuide]) -> list[dict]:
    """The settings of each guide, for result.json."""
    return [dataclasses.asdict(one.settings) for one in guides]
