"""Whether the focus reaches the picture: subjects of generated pictures, named by a judge.

Each scene holds two subjects, A and B. A painter (see `focus_ways`) makes a picture with the region
on A, and one with the region on B, from the same noise; a judge that trained and guided nothing
names their subjects. Measured are fidelity (it is what the region is on), leakage (it is the
other one), and whether the picture changed subject with the region; then, by other prompts,
whether the color of the ground and the count are as asked.
"""

import itertools
import json
import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from jaxtyping import Float, Int
from rich.console import Console
from torch import Tensor

from .focus_ways import Painter, pipeline_painter, training_free, ways_around
from .framing import resize
from .mini.artwork import HELD_OUT_STYLES, TRAINING_STYLES
from .mini.captions import COLORS
from .mini.emoji_world import Cast, Mix, render_world
from .mini.evaluate_regions import read_cast
from .mini.picture_judge import SIZE, WEIGHTS, PictureJudge, ground_colors
from .mini.rates import mean_rate, rate, shown
from .tables import markdown_table
from .whole_files import write_json, write_text

Namer = Callable[[Tensor], Tensor]
"""Pictures in [0, 1] -> what each shows, as indices."""

STYLES = {"training styles": TRAINING_STYLES, "held-out style": HELD_OUT_STYLES}
PROMPT = "a large {subject} on a white background"


@dataclass(frozen=True)
class EvaluateFocus:
    """Whether the region decides what is generated, by a judge that trained and guided nothing."""

    scenes: int = 200
    """Held-out scenes of two subjects, of each kind of style."""
    prompts: int = 144
    """Pictures whose prompts name a ground's color and a count, of each kind of style."""
    steps: int = 4
    """Of the denoising."""
    guidance: float = 1.5
    """Classifier-free guidance."""
    seed: int = 2_000_003
    """Of scenes and noise; training uses others."""
    generator: str = "mini"
    """mini, a folder of a BLIP-Diffusion pipeline, or FILE.py:FUNCTION for any other pipeline: the
    function returns a painter (see `focus_ways`), which has its own steps and guidance."""
    device: str = "cpu"
    """Where a pipeline runs."""
    judge: Path | None = None
    """Folder of the judge of pictures; the shipped one if not given."""
    artwork: Path = Path("runs/artwork")
    """Folder of the emoji; see python -m alphaclip_gen.mini.artwork."""
    output: Path = Path("evaluation/focus")
    """Folder for focus.json and focus.md."""


@dataclass(frozen=True)
class Pairs:
    """Scenes of two subjects.

    Attributes:
        image: the scenes.
        visible: what can be seen of A and of B.
        subject: what they are, as the judge names them.
    """

    image: Float[Tensor, "scenes 3 height width"]
    visible: Float[Tensor, "scenes 2 height width"]
    subject: Int[Tensor, "scenes 2"]


def evaluate_focus(config: EvaluateFocus, console: Console) -> dict:
    """Prints and writes the tables; returns what focus.json holds."""
    for name in ("scenes", "prompts", "steps"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}; expected 1 or more.")
    cast = read_cast(config.artwork)
    folder = config.judge or WEIGHTS
    judge = PictureJudge.from_pretrained(folder)
    painters, about = _painters(config)
    result: dict = {
        "date": date.today().isoformat(),
        "seed": config.seed,
        "generator": config.generator,
        **about,
        "prompt": PROMPT,
        "judge": json.loads((folder / "judge.json").read_text())["held_out"],
        "kinds": {},
    }
    for kind, styles in STYLES.items():
        pairs = pair_scenes(cast, config.scenes, config.seed, styles)
        ways = focus_rows(ways_around(*painters), pairs, concept_namer(judge), config.seed, console)
        asked = pair_scenes(cast, config.prompts, config.seed + 1, styles)
        control = prompt_control(painters[0], asked, judge, config.seed)
        result["kinds"][kind] = {"scenes": config.scenes, "ways": ways, "control": control}
    console.print(markdown(result), soft_wrap=True)
    write_json(config.output / "focus.json", result)
    write_text(config.output / "focus.md", markdown(result))
    return result


def _painters(config: EvaluateFocus) -> tuple[list[Painter], dict]:
    """The painter, and the one that is focused without training, if any; what is said of them."""
    if ".py:" in config.generator:
        return [load_painter(config.generator)], {}
    from .mini.generator import load_generator

    pipe = load_generator(config.generator).to(config.device)
    painters = [
        pipeline_painter(one, steps=config.steps, guidance=config.guidance)
        for one in (pipe, training_free(pipe))
    ]
    about = {
        "steps": config.steps,
        "guidance": config.guidance,
        "geometry": pipe.image_processor.geometry,
    }
    return painters, about


def load_painter(name: str) -> Painter:
    """What the function of FILE.py:FUNCTION returns.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or no such function in it.
    """
    path, _, function = name.rpartition(":")
    if not Path(path).is_file():
        raise FileNotFoundError(f"generator is {name!r}, but {path!r} is no file.")
    defined = runpy.run_path(path)
    if not callable(defined.get(function)):
        raise ValueError(
            f"generator is {name!r}, but {path} defines no function {function!r}; expected one "
            "without arguments that returns a painter (see alphaclip_gen.focus_ways)."
        )
    return defined[function]()


def pair_scenes(cast: Cast, count: int, seed: int, styles: Sequence[str]) -> Pairs:
    """So many scenes in which two emoji, in the colors they were drawn in, can be seen well.

    Either of the two may be the one in front.
    """
    generator = torch.Generator().manual_seed(seed)
    mix = Mix(objects=(2, 2), styles=tuple(styles), solids=0.0, looks=0.0, rough=0.0)
    found, missing = list[Pairs](), count
    while missing > 0:
        scenes = render_world(cast, count, generator, mix)
        both = (scenes.present.sum(1) == 2).nonzero()[:missing, 0]
        order = torch.rand(len(both), 2, generator=generator).argsort(1)
        rows = both[:, None], order
        found.append(Pairs(scenes.image[both], scenes.visible[rows], scenes.concept[rows]))
        missing -= len(both)
    image, visible, subject = (
        torch.cat([getattr(part, name) for part in found])
        for name in ("image", "visible", "subject")
    )
    return Pairs(image, visible, subject)


def concept_namer(judge: PictureJudge) -> Namer:
    """What the judge says a picture shows; pictures of any size are brought to its own."""
    return lambda pictures: judge.name(resize(pictures, (SIZE, SIZE), "bicubic")).concept


def focus_rows(
    ways: dict[str, Painter],
    pairs: Pairs,
    name: Namer,
    seed: int,
    console: Console | None = None,
    prompt: str = PROMPT,
) -> dict[str, dict]:
    """The figures of each way to point at a region; all use the same scenes and noise.

    Args:
        ways: name -> painter.
        pairs: the scenes.
        name: names what pictures show, as `pairs.subject` does.
        seed: of the noise; it is the same for both regions of a scene.
        console: told of each way that is done.
        prompt: for every picture.
    """
    seeds = [seed + number for number in range(len(pairs.image))]
    rows = {}
    for way, paint in ways.items():
        named = torch.stack(
            [
                name(paint(pairs.image, alpha[:, None], [prompt] * len(seeds), seeds))
                for alpha in pairs.visible.unbind(1)
            ],
            dim=1,
        )
        rows[way] = focus_figures(named, pairs.subject)
        if console is not None:
            console.print(f"{way}: is the region's subject {shown(rows[way]['is region'])}")
    return rows


def focus_figures(
    named: Int[Tensor, "scenes 2"], subject: Int[Tensor, "scenes 2"]
) -> dict[str, dict]:
    """Fidelity and leakage of each region and of both together, and how often both are right.

    The two pictures of a scene are not independent: together they count as one trial.

    Args:
        named: what the picture of region A, and that of region B, was said to show.
        subject: A and B.
    """
    right, other = named == subject, named == subject.flip(1)
    return {
        "region on A, is A": rate(right[:, 0]),
        "region on A, is B": rate(other[:, 0]),
        "region on B, is B": rate(right[:, 1]),
        "region on B, is A": rate(other[:, 1]),
        "is region": mean_rate(right),
        "is other": mean_rate(other),
        "changed": rate(right.all(1)),
    }


def prompt_control(paint: Painter, pairs: Pairs, judge: PictureJudge, seed: int) -> dict[str, dict]:
    """How often the ground's color and the count are as the prompt says.

    The prompts go through all colors with one, two and three subjects.
    """
    from .mini.generator.prompts import Instruction, wording

    asked = [Instruction(color, count) for count, color in itertools.product((1, 2, 3), COLORS)]
    asked = [asked[number % len(asked)] for number in range(len(pairs.image))]
    seeds = [seed + number for number in range(len(asked))]
    prompts = [wording(instruction) for instruction in asked]
    pictures = paint(pairs.image, pairs.visible[:, :1], prompts, seeds)
    names = list(COLORS)
    color = torch.tensor([names.index(str(instruction.ground)) for instruction in asked])
    count = torch.tensor([instruction.count for instruction in asked])
    verdict = judge.name(resize(pictures, (SIZE, SIZE), "bicubic"))
    right_color, right_count = ground_colors(pictures) == color, verdict.number == count
    return {
        "color": rate(right_color),
        "count": rate(right_count),
        "both": rate(right_color & right_count),
        "subject": rate(verdict.concept == pairs.subject[:, 0]),
    }


def markdown(result: dict) -> str:
    """The tables as a page."""
    kinds = result["kinds"]
    pages = []
    for kind, part in kinds.items():
        heads = list(next(iter(part["ways"].values())))
        lines = [(way, *(shown(row[h]) for h in heads)) for way, row in part["ways"].items()]
        pages += [f"## {kind}\n", markdown_table(["", *heads], lines)]
    lines = [
        (name, *(shown(part["control"][name]) for part in kinds.values()))
        for name in next(iter(kinds.values()))["control"]
    ]
    scenes = ", ".join(f"{part['scenes']} ({kind})" for kind, part in kinds.items())
    pages += [
        "## prompts\n",
        markdown_table(["", *kinds], lines),
        f"Top-1 of the judge among all concepts, with 95 % Wilson intervals. Scenes of two "
        f'subjects: {scenes}; each picture by the prompt "{result["prompt"]}", those of the last '
        f"table by prompts that name a ground and a count. Generator {result['generator']}, seed "
        f"{result['seed']}, {result['date']}.\n",
        _limits(result) if "geometry" in result else "",
        f"{_judged(result['judge'])} It trained and guided nothing that made these pictures; it "
        f"was trained on drawings of every style, other views of them.\n",
    ]
    return "\n".join(pages)


def _limits(result: dict) -> str:
    """What to know of the rows of an `AlphaBlipDiffusionPipeline`, ours or another."""
    return (
        f"{result['steps']} steps, guidance {result['guidance']}. Where a region is given (alpha, "
        "box, point, stroke, training-free focus), the generator's image processor frames it by "
        f"geometry {result['geometry']!r}: that is part of the focus. Training-free focus acts in "
        "the tower alone; the Q-Former's queries still look at all patches. A generator of mini's "
        "training learns from masks, boxes and discs, and from all-one alpha in one lesson of "
        "twenty: its rows of all-one alpha (all-one, crop, blur, gray, red circle) say what it "
        "does without a region, not what a generator could that was trained on crops.\n"
    )


def _judged(held_out: dict[str, dict[str, float]]) -> str:
    parts = (
        f"{part['concept']:.2f} of subjects and {part['count']:.2f} of counts right ({kind})"
        for kind, part in held_out.items()
    )
    return f"The judge of the pictures, on views held out from its training: {'; '.join(parts)}."
