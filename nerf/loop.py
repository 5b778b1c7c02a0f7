"""The optimization, as a generator that yields its progress after every step.

Each step renders a few views, lets the guides say how they should change, and carries that back
into the field: two backward passes, so that the towers' time and the renderer's can be told apart.
The state of a run is its field, optimizer, generator, step and start; all else follows from the
settings and the step.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from adam import Field, grown, make_adam, set_rates, take_step
from alphaclip_gen.guidance import Encoder
from blobs import Proportion
from cameras import Cameras, azimuths, random_views
from checkpoint import Checkpoint
from field import Volume, haze_field
from guides import Aim, WeightedGuide, embed, pull
from implicit import ImplicitField
from looks import looks
from losses import penalties
from render import (
    PartRendering,
    Rendering,
    Shape,
    occupancy,
    random_light,
    render_parts,
    shaded,
)
from scene import NOTHING, Scene, first_field, open_scene, sizes
from schedule import stage
from settings import Config
from shares import WHOLE, Shares
from warm_start import GRAY_BALL, FirstRound, Scenery, Start, best_start, first_round

_FIRST_ROUNDS: WeakKeyDictionary[Encoder, dict[tuple, FirstRound]] = WeakKeyDictionary()
"""The last one of each tower, by the settings that it is of: the next prompt or part begins with
the same."""


@dataclass
class Clock:
    """Seconds spent, by part; waits for a GPU to finish."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            passed = time.perf_counter() - begin
            self.seconds[part] = self.seconds.get(part, 0.0) + passed


@dataclass(frozen=True)
class Progress:
    """Where a run stands after `step` steps; step 0 is what it begins with."""

    step: int
    loss: float
    """The sum of `losses`, as it was before the step; nan at the beginning."""
    score: float
    """Of the pictures of this step, by the first guide that counts."""
    losses: dict[str, float]
    """The terms by name, weighted: the guides' first. Empty at the beginning."""
    field: Field
    optimizer: torch.optim.Adam
    sharpness: float
    start: Start
    random: Tensor
    """State of the generator, from which the next step goes on."""
    scene: Scene = NOTHING

    def is_whole(self) -> bool:
        """Whether the optimizer is this field's: it is not while a later step makes a finer one."""
        stepped = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        return stepped == {id(p) for p in self.field.parameters()}

    @torch.no_grad()
    def volume(self) -> Volume:
        """The field of this moment, ready to render."""
        return self.scene.held(self.field.volume(self.sharpness), self.sharpness)


def optimize(
    config: Config,
    guides: Sequence[WeightedGuide],
    generator: torch.Generator,
    clock: Clock,
    resumed: Checkpoint | None = None,
    shares: Shares = WHOLE,
    before_each: Callable[[], None] = lambda: None,
) -> Iterator[Progress]:
    """Progress at the beginning and after each step; the field in it goes on changing.

    Args:
        config: the settings.
        guides: of the prompt; the first one chooses the warm start.
        generator: of the steps' random numbers.
        clock: of the seconds spent.
        resumed: goes on from here instead of from the beginning.
        shares: of each step's views.
        before_each: of the warm start, see `first_round`.

    Raises:
        FloatingPointError: a term of the loss, a gradient or the stepped field is not a number any
            more; the field is still as it was at the last progress.
        ValueError, FileNotFoundError: a shape or the mesh to start from can't be used.
    """
    with clock("warm start"):
        scene = open_scene(config, clock.device)
        start = resumed.start if resumed else find_start(config, scene, guides[0], before_each)
    first = resumed.step if resumed else 0
    model, optimizer = begin(config, start, clock.device, scene)
    progress = _progress(config, max(first - 1, 0))
    if resumed:
        model = grown(model, optimizer, _sizes(config, scene, progress), config.adam)
        resumed.restore(model, optimizer, generator)
    shares.agree(model.parameters())
    sharpness = config.field.sharpness(progress)
    state = generator.get_state()
    yield Progress(first, math.nan, math.nan, {}, model, optimizer, sharpness, start, state, scene)
    for step in range(first, config.steps):
        progress = _progress(config, step)
        with clock("rendering"):
            model = grown(model, optimizer, _sizes(config, scene, progress), config.adam)
            set_rates(optimizer, config.adam, progress)
        losses, score = _step(
            model, optimizer, guides, config, scene, step, generator, clock, shares
        )
        sharpness = config.field.sharpness(progress)
        loss, state = sum(losses.values()), generator.get_state()
        yield Progress(
            step + 1, loss, score, losses, model, optimizer, sharpness, start, state, scene
        )


def find_start(
    config: Config,
    scene: Scene,
    one: WeightedGuide,
    before_each: Callable[[], None] = lambda: None,
) -> Start:
    """The blob that each aim of a guide likes best; of a mesh, its mean color.

    Blobs are looked at in the size of the last pictures: smaller ones hide what tells them apart.
    A tower's look at the first round is kept while the tower is, if it can be referred to weakly:
    its weights are not expected to change.
    """

    def find(aim: Aim) -> Start:
        settings, encoder = config.warm_start, aim.guide.encoder
        if settings.shades < 1:
            return GRAY_BALL
        see = partial(embed, encoder, mode=config.alpha, tower=config.tower, progress=1.0)
        scenery = Scenery(
            config.side(1.0), settings, config.field, config.cameras, config.render, config.seed,
            torch.device(config.device),
        )  # fmt: skip
        kept: dict[tuple, FirstRound] = {}
        with suppress(TypeError):  # not every tower can be a key
            kept = _FIRST_ROUNDS.setdefault(encoder, kept)
        key = scenery, config.alpha, config.tower
        if key not in kept:
            kept.clear()
            kept[key] = first_round(see, scenery, before_each=before_each)
        return best_start(aim.guide, see, kept[key], settings, before_each)

    whole = next((aim for aim in one.aimed if not aim.part), None)
    parts = () if config.start.repaint else tuple(find(aim) for aim in one.aimed if aim.part)
    if scene.body is not None:
        red, green, blue = scene.body.color.mean(dim=(0, 2, 3, 4)).tolist()
        return Start(Proportion(), (red, green, blue), None, parts)
    first = parts[0] if whole is None else find(whole)
    return dataclasses.replace(first, parts=parts)


def begin(
    config: Config, start: Start, device: torch.device, scene: Scene = NOTHING
) -> tuple[Field, torch.optim.Adam]:
    """The field that a run begins with, and its optimizer."""
    settings, color = config.field, torch.tensor(start.color, device=device)
    blob = start.proportion if settings.begin == "blob" else None
    model: Field
    if settings.kind == "implicit":
        weights = torch.Generator().manual_seed(config.seed)
        model = ImplicitField(settings, blob, color, weights)
    elif blob is None:
        model = haze_field(settings, device)
    else:
        model = first_field(start, scene, settings, device)
    return model, make_adam(model, config.adam)


def _step(
    model: Field,
    optimizer: torch.optim.Adam,
    guides: Sequence[WeightedGuide],
    config: Config,
    scene: Scene,
    step: int,
    generator: torch.Generator,
    clock: Clock,
    shares: Shares,
) -> tuple[dict[str, float], float]:
    """Losses by name and score, before the step."""
    progress = _progress(config, step)
    cameras = random_views(config.views, config.cameras, generator)
    optimizer.zero_grad()
    numbers = []
    for share, random in shares.parts(generator):
        with clock("rendering"):
            sharpness = config.field.sharpness(progress)
            volume = scene.held(model.volume(sharpness), sharpness)
            mine = shares.of(cameras, share)
            whole, parts, color, opacity = _pictures(volume, mine, config, scene, progress, random)
            _check_finite({"rendering": opacity, "rendered color": color}, step)
        with clock("CLIP"):
            said, score, gradients = guidance_gradient(
                guides, color, opacity, config, progress, random, azimuths(mine)
            )
        with clock("rendering"):
            owned = list(zip((part.own for part in parts), scene.shares, strict=True))
            terms = penalties(volume, whole.opacity, config.losses, progress, owned)
            total = torch.stack([*terms.values(), color.new_zeros(())]).sum()
            torch.autograd.backward([color, opacity, total], [*gradients, None])
        found = {name: term.item() for name, term in terms.items()}
        numbers.append({**said, **found, "score": score})
    with clock("rendering"):
        losses = shares.average(model.parameters(), numbers)
        _check_finite({f"{name} loss": torch.tensor(loss) for name, loss in losses.items()}, step)
        gradients_of = {f"gradient of {n}": p.grad for n, p in model.named_parameters()}
        _check_finite(gradients_of, step)
        take_step(optimizer, config.adam, progress)
        model.clamp()
    score = losses.pop("score")
    return losses, score


def _pictures(
    volume: Volume,
    cameras: Cameras,
    config: Config,
    scene: Scene,
    progress: float,
    generator: torch.Generator,
) -> tuple[Rendering, list[PartRendering], Tensor, Tensor]:
    """Renderings of the views and of each part; the pictures of all aims, one after the other.

    The pictures are lit premultiplied color, and the opacity; with parts, another layer of it is
    what is attended to.
    """
    light = config.render
    cameras = cameras.to(volume.logits.device)
    step = light.length(volume.logits.shape[-1])
    space = occupancy(volume.density(), step, light.threshold, light.margin, light.faint)
    shapes: list[Shape] = list(scene.shapes)
    if shapes and scene.whole:
        shapes.insert(0, scene.reach)
    whole, parts = render_parts(
        volume, shapes, cameras, config.side(progress), space, step, light.hidden_below, generator
    )
    lamps = random_light(cameras, light, generator)
    if not parts:
        return whole, parts, shaded(whole, *lamps), whole.opacity
    aims = list(parts)
    if scene.whole:
        aims[0] = PartRendering(parts[0].pictures, parts[0].pictures.opacity)
        parts = parts[1:]
    color = torch.cat([shaded(aim.pictures, *lamps) for aim in aims])
    layers = [torch.cat([aim.pictures.opacity, aim.own], dim=1) for aim in aims]
    return whole, parts, color, torch.cat(layers)


def guidance_gradient(
    guides: Sequence[WeightedGuide],
    color: Float[Tensor, "pictures 3 height width"],
    opacity: Float[Tensor, "pictures layers height width"],
    config: Config,
    progress: float,
    generator: torch.Generator,
    azimuth: Float[Tensor, " views"] | None = None,
) -> tuple[dict[str, float], float, tuple[Tensor, Tensor]]:
    """Losses by model, mean score, and the gradients in premultiplied color and in opacity.

    The pictures are all views for each aim of the guides in turn; `opacity` as `looks` takes it.
    """
    color = color.detach().requires_grad_()
    opacity = opacity.detach().requires_grad_()
    image, alpha = looks(color, opacity, config.augment, generator)
    if azimuth is not None:
        azimuth = azimuth.repeat(len(color) // len(azimuth))
        azimuth = azimuth.repeat_interleave(config.augment.copies)
    said = pull(guides, image, alpha, config.alpha, config.tower, progress, azimuth)
    in_color, in_opacity = torch.autograd.grad(
        [image, alpha], [color, opacity], [said.in_image, said.in_alpha]
    )
    return said.losses, said.score, (in_color, in_opacity)


def _check_finite(values: dict[str, Tensor | None], step: int) -> None:
    for name, value in values.items():
        if value is not None and not value.sum().isfinite():  # a sum keeps what is not
            raise FloatingPointError(
                f"the {name} is not finite in step {step + 1}; nothing was changed by that step. "
                "Lower adam.density_rate or the weight of that term, or set tower.precision to "
                "single."
            )


def _progress(config: Config, step: int) -> float:
    return step / max(config.steps - 1, 1)


def _sizes(config: Config, scene: Scene, progress: float) -> tuple[int, int]:
    """Voxels a side of density and of color that are due."""
    return sizes(scene, config.field, stage(config.field.grow_at, progress))
