"""One prompt from its settings to its files: taken up where it was left, watched, kept, saved."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch

import checkpoint
import live
from alphaclip_gen.guidance import Encoder
from alphaclip_gen.made_meshes import RESULT, result_of
from alphaclip_gen.whole_files import write_json
from checkpoint import Checkpoint
from guides import WeightedGuide, describe, make_guides, tower_digests
from interrupts import asked_to_stop
from loop import Clock, Progress, optimize
from results import drop_older_files, save_result_files
from scene import digests
from scores import final_scores
from settings import Config, title
from shares import WHOLE, PeerLost, Shares
from versions import versions
from viewer import Viewer

PLACES = {"output", "prompts", "device", "session"}
"""Settings that say where and how a run is made, not what."""
FILES = {"mesh", "pictures"}
"""Settings of the files alone: a checkpoint goes on under others."""
INTERRUPTED = "interrupted"
"""Why a run ended early, where a person did it."""
ALIKE = 0.95
"""How far a mesh's outline should agree with the rendered opacity (intersection over union)."""


class RunStopped(RuntimeError):
    """A run ended early; the message says why, and what is kept."""


def run(
    config: Config,
    encoders: Sequence[Encoder],
    folder: Path,
    shares: Shares = WHOLE,
    viewer: Viewer | None = None,
    quiet: bool = False,
) -> dict:
    """What result.json holds, after one prompt; an interrupt ends the steps, not the saving.

    Args:
        config: with `prompt`; its `prompts` and `output` are not looked at.
        encoders: one for each of the settings' towers.
        folder: of the results; must be there.
        shares: this process's part of every step's views; only the first process writes.
        viewer: shows the object as it grows.
        quiet: no progress bar.

    Raises:
        KeyboardInterrupt: interrupted before there was anything to save.
        FloatingPointError, PeerLost: a loss was no number, or another process ended, in the first
            step; later, that ends the steps like an interrupt.
        ValueError: the checkpoint to go on from is damaged, or of other settings.
        RunStopped: the folder can't be written any more.
    """
    begin = time.perf_counter()
    guides, settings = make_guides(config, encoders), settings_of(config, encoders)
    resumed = _take_up(config, settings, folder, shares)
    clock = Clock(torch.device(config.device), dict(resumed.seconds) if resumed else {})
    begin -= resumed.elapsed if resumed else 0.0
    generator = torch.Generator().manual_seed(config.seed)
    steps = optimize(config, guides, generator, clock, resumed, shares)
    if not shares.leads:
        last, stopped = _follow(steps, [], clock)
        return {"steps": last.step, "stopped": stopped}
    take = partial(_checkpoint, settings, clock, begin)
    with _disk_errors(folder), ExitStack() as stack:
        # processes that share a step must not each choose where to stop
        stopping = (lambda: False) if shares.spread else stack.enter_context(asked_to_stop())
        watches = list(_watches(config, folder, resumed, viewer, quiet, take, stopping, stack))
        last, stopped = _follow(steps, watches, clock, stopping)
        stack.close()
        if stopped not in ("", INTERRUPTED) and last.is_whole():
            checkpoint.write(folder, take(last))
        with clock("saving"):
            found = save(config, guides[0], last, folder)
        losses = resumed.losses if resumed and last.step == resumed.step else last.losses
        result = {
            "prompt": title(config),
            "seed": config.seed,
            "interrupted": bool(stopped),
            "stopped": stopped,
            "steps": last.step,
            "losses": {name: round(loss, 4) for name, loss in losses.items()},
            "resumed_from": resumed.step if resumed else None,
            "seconds": round(time.perf_counter() - begin, 2),
            "seconds_by_part": {part: round(s, 2) for part, s in clock.seconds.items()},
            "milliseconds_a_step": _milliseconds(clock, last.step),
            "guides": describe(guides),
            "threads": torch.get_num_threads(),
            "bfloat16": config.tower.in_bfloat16(config.device),
            **found,
            "settings": settings,
            "versions": versions(),
        }
        write_json(folder / RESULT, result)
    return result


def save(config: Config, one: WeightedGuide, last: Progress, folder: Path) -> dict:
    """Scores, start and figures of the mesh; the mesh and its pictures are in the folder then.

    Where nothing has formed, the pictures alone are.
    """
    (folder / RESULT).unlink(missing_ok=True)
    volume = last.volume()
    found = save_result_files(folder, volume, config.mesh, config.pictures)
    if not config.session.render_only:
        drop_older_files(folder, found["files"])
    over_time = live.write_timeline(folder)
    return {
        "scores": final_scores(one, volume, config, last.scene),
        "start": dataclasses.asdict(last.start),
        **found,
        "files": [*found["files"], *([over_time] if over_time else [])],
    }


def is_finished(config: Config, encoders: Sequence[Encoder], folder: Path) -> bool:
    """Whether the folder holds this prompt's result, with all that was asked for.

    Raises:
        ValueError: it holds a result of another prompt or of other settings.
    """
    found = result_of(folder)
    if not found or found.get("interrupted") or found.get("problems"):
        return False
    wanted = _what(settings_of(config, encoders))
    different = checkpoint.differences(wanted, _what(found.get("settings", {})))
    if different:
        raise ValueError(
            f"output {str(folder)!r} holds a result of other settings: {'; '.join(different)}. "
            "Give another folder with --output, or remove that one."
        )
    return True


def check_free(config: Config, folder: Path) -> None:
    """Nothing.

    Raises:
        ValueError: the folder holds the result, or the checkpoint, of another prompt.
    """
    if result := result_of(folder):
        there = result.get("prompt")
    elif (left := checkpoint.found_in(folder)) is not None:
        prompt, parts = left.settings["prompt"], tuple(left.settings["parts"])
        there = title(dataclasses.replace(config, prompt=prompt, parts=parts))
    else:
        return
    if there != title(config):
        raise ValueError(
            f"output {str(folder)!r} holds what was made of {there!r}, not of {title(config)!r}. "
            "Give another folder with --output, or remove that one."
        )


def summary(result: dict, folder: Path) -> str:
    """One line on a result."""
    named = f", named {result['scores']['named']!r}" if "named" in result["scores"] else ""
    state = f"stopped after {result['steps']} steps" if result["stopped"] else "done"
    score = f"score {result['scores']['score']:.3f}"
    agreement = result["silhouette_iou"]
    if agreement is None:
        outline = ", no mesh yet"
    else:
        outline = "" if agreement >= ALIKE else f", outline only {agreement:.2f} like the render's"
    return f"{state} in {result['seconds']:.0f} s, {score}{named}{outline} -> {folder}"


def explanation(result: dict, folder: Path) -> str:
    """What a result lacks, why, and what to do about it; "" for a whole or interrupted one."""
    said = [result["stopped"], *result.get("problems", [])]
    lacks = " ".join(text for text in said if text not in ("", INTERRUPTED))
    if not lacks:
        return ""
    kept = f"What there is of step {result['steps']} is saved, beside {folder / checkpoint.FILE}"
    if result["stopped"]:
        way = f"--resume goes on from its step {checkpoint.step_in(folder)}"
        if result["mesh"]:
            way += f" under the same settings, --start {folder} --output ANOTHER under others"
        return f"{lacks} {kept}: {way}."
    if result["mesh"]:
        return f"{lacks} {kept}: --render-only makes the files anew."
    return f"{lacks} {kept}."


def settings_of(config: Config, encoders: Sequence[Encoder]) -> dict:
    """The settings as result.json holds them, with what tells their files and towers apart."""
    found = {**digests(config), **tower_digests(config, encoders)}
    settings = {**dataclasses.asdict(config), "digests": found}
    return json.loads(json.dumps(settings, default=str))


def _what(settings: dict, less: Iterable[str] = PLACES) -> dict:
    """The settings that decide what is made."""
    return {key: value for key, value in settings.items() if key not in less}


def _take_up(config: Config, settings: dict, folder: Path, shares: Shares) -> Checkpoint | None:
    """The checkpoint to go on from; what an earlier run left of its way is gone without one."""
    data = None
    if shares.leads:
        for place in (folder, folder / live.PREVIEWS):
            checkpoint.sweep(place)
        if config.session.resume or config.session.render_only:
            data = checkpoint.read(folder, _what(settings, PLACES | FILES))
        if config.session.render_only:
            _check_is_complete(data, config, folder)
        if data is None:
            live.forget_previews(folder)
    data = shares.from_first(data)
    return None if data is None else checkpoint.unpack(data)


def _check_is_complete(data: bytes | None, config: Config, folder: Path) -> None:
    step = None if data is None else checkpoint.unpack(data).step
    if step != config.steps:
        has = "no checkpoint" if step is None else f"a checkpoint of step {step}"
        raise ValueError(
            f"render_only needs all {config.steps} steps, but {str(folder)!r} holds {has}; leave "
            "--render-only out, with --resume to go on."
        )


def _checkpoint(settings: dict, clock: Clock, begin: float, now: Progress) -> Checkpoint:
    return Checkpoint(
        step=now.step,
        start=now.start,
        settings=_what(settings, PLACES | FILES),
        losses=now.losses,
        seconds=dict(clock.seconds),
        elapsed=time.perf_counter() - begin,
        field=now.field.state_dict(),
        optimizer=now.optimizer.state_dict(),
        generator=now.random,
    )


def _watches(
    config: Config,
    folder: Path,
    resumed: Checkpoint | None,
    viewer: Viewer | None,
    quiet: bool,
    take: Callable[[Progress], Checkpoint],
    stopping: Callable[[], bool],
    stack: ExitStack,
) -> Iterator[live.Watch]:
    """Everything that follows a run, the keeping of checkpoints last."""
    session, prompt = config.session, title(config)
    kept = resumed.step if resumed else None
    first = kept or 0
    every = session.interval(config.steps)
    yield stack.enter_context(live.progress_bar(prompt, config.steps, first, hidden=quiet))
    if every:
        yield live.previews(folder, every, config.steps)
    if session.tensorboard:
        yield stack.enter_context(live.tensorboard(folder, first, every))
    if viewer is not None:
        yield partial(viewer.show, prompt, config.steps)
    yield checkpoint.keeper(folder, session.checkpoint_seconds, config.steps, take, kept, stopping)


def _follow(
    steps: Iterable[Progress],
    watches: Sequence[live.Watch],
    clock: Clock,
    stopping: Callable[[], bool] = lambda: False,
) -> tuple[Progress, str]:
    """The last good progress, and why the steps ended early; "" if they did not."""
    last: Progress | None = None
    try:
        for last in steps:
            with clock("watching"):
                for watch in watches:
                    watch(last)
            if stopping():
                raise KeyboardInterrupt
    except (KeyboardInterrupt, FloatingPointError, PeerLost) as error:
        if last is None or last.step == 0:
            raise
        return last, str(error) or INTERRUPTED
    assert last is not None
    return last, ""


def _milliseconds(clock: Clock, steps: int) -> dict[str, float]:
    """A step's mean time, by part."""
    parts = ("CLIP", "rendering")
    return {part: round(1000 * clock.seconds.get(part, 0.0) / steps, 1) for part in parts}


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Says what is kept, and what to do, when a file can't be written."""
    try:
        yield
    except OSError as error:
        step = checkpoint.step_in(folder)
        kept = "no checkpoint was written yet" if step is None else f"step {step} is kept"
        raise RunStopped(
            f"output {str(folder)!r} can't be written any more: {error.strerror or error}; {kept}. "
            "Make room there, then go on with the same command and --resume."
        ) from error
