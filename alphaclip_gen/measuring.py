"""Time and memory of calls that take turns, side by side in one process.

Time: each call of a case stands next to a call of the first one, before it or after it in turn, so
that neither their order nor a machine that slows down counts. A ratio compares these two; shown are
its median over the rounds and its quartiles.

Memory: the bytes of weights and buffers, and the most bytes that one call holds at once besides
them and its input. On a CPU that is the highest running sum of the allocations and releases that
torch.profiler records; on CUDA it is torch.cuda.max_memory_allocated.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

Clock = Callable[[], float]
Cases = dict[str, partial]
"""What takes turns, by name; the first is what the others are compared with."""


class Pair(NamedTuple):
    """Seconds of a case, and of the first case next to it."""

    own: float
    first: float


class Against(NamedTuple):
    """A case's median seconds; its ratio to the first case, the median and the quartiles."""

    seconds: float
    ratio: float
    low: float
    high: float


def compare(cases: Cases, rounds: int, clock: Clock, *, seconds: float = 0.0) -> dict[str, Against]:
    """Each case against the first, after one call of each that is not timed.

    Args:
        cases: what takes turns.
        rounds: least number of turns of each.
        clock: reads the seconds.
        seconds: cases that are done sooner take more turns, until so long has passed.
    """
    for case in cases.values():
        case()
    first, *others = cases
    pairs: dict[str, list[Pair]] = {name: [] for name in others}
    began, turn = clock(), 0
    while others and (turn < rounds or clock() - began < seconds):
        for name in others:
            calls = (name, first) if turn % 2 else (first, name)
            took = {call: _timed(cases[call], clock) for call in calls}
            pairs[name].append(Pair(took[name], took[first]))
        turn += 1
    alone = [] if others else [_timed(cases[first], clock) for _ in range(rounds)]
    beside = [pair.first for found in pairs.values() for pair in found]
    median = statistics.median(alone + beside)
    return {first: Against(median, 1, 1, 1)} | {name: against(pairs[name]) for name in others}


def _timed(case: Callable[[], object], clock: Clock) -> float:
    start = clock()
    case()
    return clock() - start


def against(pairs: Sequence[Pair]) -> Against:
    """What the seconds of all rounds come to."""
    ratios = [pair.own / pair.first for pair in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Against(statistics.median(pair.own for pair in pairs), middle, low, high)


def clock_of(device: torch.device) -> Clock:
    """Seconds, read when all work on the device is done."""
    if device.type != "cuda":
        return time.perf_counter

    def synchronized() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronized


def peak_bytes(case: Callable[[], object], device: torch.device) -> int:
    """The most bytes that the call holds at once, besides what was there before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        case()
        return torch.cuda.max_memory_allocated(device) - before
    with _silent_profiler(), tempfile.TemporaryDirectory() as folder:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            case()
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    records = [event for event in events if event.get("name") == "[memory]"]
    records.sort(key=lambda event: event["ts"])
    return max(accumulate(event["args"]["Bytes"] for event in records), default=0)


@contextmanager
def _silent_profiler() -> Iterator[None]:
    """The profiler's log lines go nowhere: it writes them to standard error, past Python."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def model_bytes(model: Any) -> int:
    """Bytes of a module's weights and buffers."""
    return sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
