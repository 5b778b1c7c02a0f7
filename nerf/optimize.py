"""Text to 3D: python nerf/optimize.py --prompt "a red cone"

Writes mesh.glb (vertex colors), turntable.gif, preview.png, timeline.png and result.json. Ctrl-C
keeps what is done; --resume goes on where a run was stopped or killed. Also: --prompts FILE (one
prompt a line), which accelerate launch spreads over processes, GPUs and machines. Parts have texts
of their own: --preset parts --prompt "a snowman" --part "a red cone @ top 0.4".
All settings: --help
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

import many
from alphaclip_gen.guidance import Encoder
from alphaclip_gen.made_meshes import FAILURES, read_prompts, slug, slugs
from alphaclip_gen.whole_files import make_writable, write_json
from checkpoint import step_in
from checks import check
from guides import load_encoders
from many import Place
from presets import parse_config
from run import RunStopped, check_free, explanation, is_finished, run, summary
from scene import check_apart
from settings import Config, of_line, title
from shares import PeerLost, Shares
from viewer import Viewer, open_viewer


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 some prompts failed, 2 a setting can't be used, 130 interrupted."""
    place = many.find_place()
    try:
        config = parse_config(arguments, __doc__)
        many.use_own_gpu(config.device, place)
        check(config)
        with _viewer(config, place) as viewer:
            if config.prompts is None:
                return _run_one(config, place, viewer)
            return _run_file(config, place, viewer)
    except KeyboardInterrupt:
        print("interrupted before the first step; nothing to keep.", file=sys.stderr)
        return 130
    except (RunStopped, FloatingPointError, PeerLost, torch.OutOfMemoryError) as error:
        print(f"{place.label}error: {_reason(error)}", file=sys.stderr)
        return 1
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"{place.label}error: {error}", file=sys.stderr)
        return 2


def _run_one(config: Config, place: Place, viewer: Viewer | None) -> int:
    """Exit code, after one prompt; several processes share out the views of its steps."""
    folder = config.output or Path("outputs") / slug(title(config))
    check_apart(config.start, folder)
    if place.leads:
        make_writable(folder)
        check_free(config, folder)
    with many.joined(place, config.split_views, config.device) as shares:
        encoders = load_encoders(config)
        known = place.leads and config.session.resume and _is_there(config, encoders, folder)
        if shares.from_first(known):
            print(f"{place.label}{title(config)}: finished before -> {folder}")
            return 0
        result = run(config, encoders, folder, shares, viewer, quiet=not place.leads)
    if place.leads:
        print(f"{title(config)}: {summary(result, folder)}")
        _linger(viewer)
    return _exit_code(result, folder)


def _run_file(config: Config, place: Place, viewer: Viewer | None) -> int:
    """Exit code, after every prompt of a file; a failed one does not stop the others."""
    assert config.prompts is not None
    prompts = read_prompts(config.prompts)
    for line in (line for line in prompts if "|" in line):
        check(of_line(config, line))
    names = slugs(prompts)
    output = config.output or Path("outputs")
    make_writable(output)
    if place.leads:
        (output / FAILURES).unlink(missing_ok=True)
    store = many.meet(place)
    failures: dict[str, str] = {}
    try:
        encoders = load_encoders(config)
        for number in many.numbers(len(prompts), store):
            prompt, folder = prompts[number], output / names[number]
            one = dataclasses.replace(of_line(config, prompt), output=folder)
            head = f"{place.label}[{number + 1}/{len(prompts)}] {prompt}: "
            try:
                said = _make(one, encoders, folder, viewer, quiet=not place.leads)
            except KeyboardInterrupt:
                failures[prompt] = "interrupted"
                print(f"{head}interrupted; --resume goes on.", file=sys.stderr)
                return 130
            except Exception as error:  # one bad prompt must not cost the night's other forty
                failures[prompt] = f"{type(error).__name__}: {_reason(error)}"
                print(head + failures[prompt], file=sys.stderr)
            else:
                print(head + said, flush=True)
    finally:
        many.hand_in(failures, place, store)
    return _conclude(failures, len(prompts), output, place, store)


def _make(
    config: Config,
    encoders: Sequence[Encoder],
    folder: Path,
    viewer: Viewer | None,
    quiet: bool,
) -> str:
    """What to say of one prompt of a file, which is made unless it is there.

    Raises:
        KeyboardInterrupt: it was interrupted; what is done is saved.
        RunStopped: something else ended it early, or is missing; the rest is saved.
    """
    if _is_there(config, encoders, folder):
        return "finished before, skipped"
    check_apart(config.start, folder)
    make_writable(folder)
    check_free(config, folder)
    shares = Shares(config.split_views, range(config.split_views))
    result = run(config, encoders, folder, shares, viewer, quiet)
    if _exit_code(result, folder):
        raise KeyboardInterrupt
    return summary(result, folder)


def _exit_code(result: dict, folder: Path) -> int:
    """0 for a finished run, 130 for an interrupted one.

    Raises:
        RunStopped: something else ended it early, or is missing; the rest is saved.
    """
    lacks = explanation(result, folder)
    if result["stopped"] == "interrupted":
        print(lacks, end="\n" if lacks else "", file=sys.stderr)
        return 130
    if lacks:
        raise RunStopped(lacks)
    return 0


def _reason(error: Exception) -> str:
    """What an error says; of memory that is used up, what to do too."""
    if not isinstance(error, torch.OutOfMemoryError):
        return str(error)
    return (
        f"out of memory: {str(error).splitlines()[0]} Use less by --tower.batch 8, by "
        "--split-views (fewer views at once) or by a smaller --resolution."
    )


def _is_there(config: Config, encoders: Sequence[Encoder], folder: Path) -> bool:
    """Whether the folder's result is this run's, and nothing is to be done any more."""
    session = config.session
    step = step_in(folder) if session.resume else None
    goes_on = step is not None and step < config.steps
    return not goes_on and not session.render_only and is_finished(config, encoders, folder)


def _conclude(
    failures: dict[str, str], count: int, output: Path, place: Place, store: "many.Store | None"
) -> int:
    """Exit code; the first process waits for the others and lists what failed anywhere."""
    if not place.leads:
        return 0  # a launcher would stop the others
    if store is not None:
        failures = many.collect(place, store)
    if failures:
        lines = [f"  {prompt}: {why}" for prompt, why in failures.items()]
        print(f"{len(failures)} of {count} prompts failed:", *lines, sep="\n", file=sys.stderr)
        write_json(output / FAILURES, failures)
    return 1 if failures else 0


@contextmanager
def _viewer(config: Config, place: Place) -> Iterator[Viewer | None]:
    """The viewer if it is asked for: the first process shows what it makes."""
    if not (config.session.viewer and place.leads):
        yield None
        return
    with open_viewer(config.session.viewer_port) as viewer:
        print(f"viewer: {viewer.address}", flush=True)
        yield viewer


def _linger(viewer: Viewer | None) -> None:
    """Nothing; lets people look at the finished object."""
    if viewer is not None and sys.stdin.isatty():
        with suppress(KeyboardInterrupt, EOFError):
            input(f"{viewer.address} stays until you press Enter.")


if __name__ == "__main__":
    sys.exit(main())
