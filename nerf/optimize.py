"""Text to 3D: python nerf/optimize.py --prompt "a red cone"

Writes mesh.glb (vertex colors), turntable.gif, preview.png and result.json. Ctrl-C keeps what is
done. Also: --prompts FILE (one prompt a line). All settings: --help
"""

import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
import tyro
from tqdm import tqdm

from alphaclip_gen import RegionEncoder
from alphaclip_gen.guidance import Encoder, Guidance, composite, random_backgrounds
from alphaclip_gen.mini.captions import all_captions
from cameras import turntable
from field import Volume
from loop import Clock, Progress, optimize
from outputs import (
    RESULT,
    make_writable,
    read_prompts,
    read_result,
    slug,
    slugs,
    versions,
    write,
    write_json,
)
from settings import Config, check
from surface import extract, write_glb
from turntable import contact_sheet, gif, turn, views

PLACES = {"output", "prompt", "prompts"}
"""Settings that say where things are, not what is made."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 some prompts failed, 2 a setting can't be used, 130 interrupted."""
    config = tyro.cli(Config, args=arguments, description=__doc__)
    try:
        check(config)
        if config.prompts is not None:
            return _run_file(config, read_prompts(config.prompts))
        assert config.prompt is not None
        folder = config.output or Path("outputs") / slug(config.prompt)
        make_writable(folder)
        result = run(config, load_encoder(config), folder)
        print(_summary(result, folder))
        return 130 if result["interrupted"] else 0
    except KeyboardInterrupt:
        print("interrupted before the first step; nothing to keep.", file=sys.stderr)
        return 130
    except (ValueError, TypeError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def load_encoder(config: Config) -> RegionEncoder:
    """The frozen tower that the settings name, on their device."""
    return RegionEncoder.from_pretrained(config.guidance, device=config.device)


def make_guide(config: Config, encoder: Encoder) -> Guidance:
    """The guide of the settings' prompt; mini's world is the negatives of mini."""
    negatives = config.negatives or (all_captions() if config.guidance == "mini" else ())
    return Guidance(
        encoder, config.prompt or "", negatives, config.loss, cosine_weight=config.cosine_weight
    )


def run(config: Config, encoder: Encoder, folder: Path) -> dict:
    """What result.json holds, after one prompt; an interrupt ends the steps, not the saving.

    Raises:
        KeyboardInterrupt: interrupted before there was anything to save.
    """
    begin = time.perf_counter()
    guide = make_guide(config, encoder)
    clock = Clock(torch.device(config.device))
    generator = torch.Generator().manual_seed(config.seed)
    last, interrupted = None, False
    try:
        with tqdm(total=config.steps, desc=config.prompt, unit="step") as bar:
            for last in optimize(config, guide, generator, clock):
                if last.step:
                    bar.set_postfix(score=f"{last.score:.3f}", refresh=False)
                bar.update(last.step - bar.n)
    except KeyboardInterrupt:
        interrupted = True
        if last is None or last.step == 0:
            raise
    assert last is not None
    with clock("saving"):
        found = save(config, guide, last, folder)
    result = {
        "prompt": config.prompt,
        "seed": config.seed,
        "interrupted": interrupted,
        "steps": last.step,
        "seconds": round(time.perf_counter() - begin, 2),
        "seconds_by_part": {part: round(s, 2) for part, s in clock.seconds.items()},
        "milliseconds_a_step": {
            part: round(1000 * clock.seconds[part] / last.step, 1) for part in ("CLIP", "rendering")
        },
        "threads": torch.get_num_threads(),
        **found,
        "settings": _as_json(config),
        "versions": versions(),
    }
    write_json(folder / RESULT, result)
    return result


def save(config: Config, guide: Guidance, last: Progress, folder: Path) -> dict:
    """Scores, start and figures of the mesh; the mesh and its pictures are in the folder then."""
    (folder / RESULT).unlink(missing_ok=True)
    with torch.no_grad():
        volume = last.field.volume(last.sharpness)
    mesh = extract(volume)
    frames = turn(volume, config.pictures)
    write(folder / "mesh.glb", write_glb(mesh))
    write(folder / "turntable.gif", gif(frames, config.pictures.milliseconds))
    write(folder / "preview.png", contact_sheet(frames))
    return {
        "scores": final_scores(guide, volume, config),
        "start": dataclasses.asdict(last.start),
        "mesh": {
            "vertices": len(mesh.vertices),
            "faces": len(mesh.faces),
            "watertight": bool(mesh.is_watertight),
            "volume": round(float(mesh.volume), 4),
        },
    }


@torch.no_grad()
def final_scores(guide: Guidance, volume: Volume, config: Config, count: int = 8) -> dict:
    """What the guide sees in the finished field, from all sides, before plain backgrounds."""
    cameras = turntable(count, config.pictures.elevation).to(volume.logits.device)
    color, rendering = views(volume, cameras, config.resolution)
    opacity = rendering.opacity
    mean = (color.sum(dim=(0, 2, 3)) / opacity.sum().clamp(min=1e-6)).cpu()
    generator = torch.Generator().manual_seed(0)
    background = random_backgrounds(count, (1, 1), generator, avoid=mean).to(color)
    image = composite(color, opacity, background).clamp(0, 1)
    masked = opacity.clamp(0, 1) if config.alpha == "opacity" else None
    embedding = guide.encoder.embed(image, masked)
    scores = {
        "score": round(float(guide.score_of(embedding).mean()), 4),
        "similarity": round(float((embedding @ guide.embeddings[0]).mean()), 4),
        "mean_opacity": round(float(opacity.mean()), 4),
    }
    if len(guide.texts) == 1:
        return scores
    named = [guide.texts[i] for i in guide.probabilities(embedding).argmax(dim=1).tolist()]
    return {
        **scores,
        "named": Counter(named).most_common(1)[0][0],
        "views_right": f"{named.count(guide.prompt)} of {count}",
    }


def _run_file(config: Config, prompts: list[str]) -> int:
    """Exit code, after every prompt of a file; a failed one does not stop the others."""
    output = config.output or Path("outputs")
    make_writable(output)
    encoder = load_encoder(config)
    failures: list[str] = []
    for number, (prompt, name) in enumerate(zip(prompts, slugs(prompts), strict=True), 1):
        one = dataclasses.replace(config, prompt=prompt, prompts=None, output=output / name)
        head = f"[{number}/{len(prompts)}] "
        try:
            if is_finished(one, output / name):
                print(f"{head}{prompt}: finished before, skipped")
                continue
            make_writable(output / name)
            result = run(one, encoder, output / name)
        except KeyboardInterrupt:
            result = {"interrupted": True}
        except Exception as error:  # one bad prompt must not cost the night's other forty
            failures.append(f"  {prompt}: {type(error).__name__}: {error}")
            print(f"{head}{failures[-1].strip()}", file=sys.stderr)
            continue
        if result["interrupted"]:
            print(f"{head}interrupted; run the same command again to go on.", file=sys.stderr)
            return 130
        print(head + _summary(result, output / name))
    if failures:
        print(f"{len(failures)} of {len(prompts)} prompts failed:", *failures, sep="\n",
              file=sys.stderr)  # fmt: skip
    return 1 if failures else 0


def is_finished(config: Config, folder: Path) -> bool:
    """Whether the folder holds this prompt's result.

    Raises:
        ValueError: it holds a result of another prompt or of other settings.
    """
    found = read_result(folder)
    if found is None or found.get("interrupted"):
        return False
    wanted = {"prompt": config.prompt, **_what(_as_json(config))}
    there = {"prompt": found.get("prompt"), **_what(found.get("settings", {}))}
    different = sorted(key for key in wanted if wanted[key] != there.get(key))
    if different:
        raise ValueError(
            f"output {str(folder)!r} holds a result with other settings ({', '.join(different)}). "
            "Give another folder with --output, or remove that one."
        )
    return True


def _what(settings: dict) -> dict:
    return {key: value for key, value in settings.items() if key not in PLACES}


def _as_json(config: Config) -> dict:
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def _summary(result: dict, folder: Path) -> str:
    named = f", named {result['scores']['named']!r}" if "named" in result["scores"] else ""
    state = f"stopped after {result['steps']} steps" if result["interrupted"] else "done"
    return (
        f"{result['prompt']}: {state} in {result['seconds']:.0f} s, "
        f"score {result['scores']['score']:.3f}{named} -> {folder}"
    )


if __name__ == "__main__":
    sys.exit(main())
