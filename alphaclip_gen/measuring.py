"""Time and memory of calls that take turns, side by side in one process.

Time: the cases of a comparison take turns, A B C, C B A, A B C ..., so that neither their order nor
a machine that slows down counts. A ratio compares two calls of one round; shown are its median over
the rounds and its quartiles.

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


class Against(NamedTuple):
    """A case's median seconds; its ratio to the first case, the median and the quartiles."""

    seconds: float
    ratio: float
    low: float
    high: float


def compare(cases: Cases, rounds: int, clock: Clock) -> dict[str, Against]:
    """Each case against the first."""
    seconds = take_turns(cases, rounds, clock)
    first = next(iter(seconds.values()))
    return {name: against(own, first) for name, own in seconds.items()}


def take_turns(cases: Cases, rounds: int, clock: Clock) -> dict[str, list[float]]:
    """Seconds of each case in each round, after one call that is not timed."""
    for case in cases.values():
        case()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(rounds):
        for name in list(cases)[:: -1 if turn % 2 else 1]:
            start = clock()
            cases[name]()
            seconds[name].append(clock() - start)
    return seconds


def against(own: Sequence[float], first: Sequence[float]) -> Against:
    """What the seconds of all rounds come to."""
    ratios = [a / b for a, b in zip(own, first, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Against(statistics.median(own), middle, low, high)


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
