"""Several processes, of one launcher, on any number of machines: who is who, and who does what.

`accelerate launch`, `torchrun` and MPI tell a process its place by environment variables; the
processes meet at the address given there. Prompts are handed out one at a time, so a fast process
makes more of them; no process waits for another before the end.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from shares import Shares

if TYPE_CHECKING:
    from torch.distributed import Store  # some builds of torch come without

PLACES = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
)
"""Variables of torch's launchers (accelerate's too), Open MPI, and Intel MPI or MPICH."""


@dataclass(frozen=True)
class Place:
    """This process among `count`."""

    rank: int = 0
    count: int = 1
    local: int = 0
    """Its number on its machine."""

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def label(self) -> str:
        """What its messages begin with; nothing when it is alone."""
        return f"[process {self.rank}] " if self.count > 1 else ""


def find_place() -> Place:
    """Where the launcher put this process; alone without one."""
    for names in PLACES:
        found = [os.environ.get(name) for name in names]
        if found[0] is not None and found[1] is not None:
            return Place(int(found[0]), int(found[1]), int(found[2] or 0))
    return Place()


def use_own_gpu(device: str, place: Place) -> None:
    """Nothing; "cuda" means another GPU in each process of a machine."""
    if device == "cuda" and place.count > 1 and torch.cuda.is_available():
        torch.cuda.set_device(place.local % torch.cuda.device_count())


def meet(place: Place) -> "Store | None":
    """The store that all processes share; None for one alone.

    Raises:
        ValueError: the launcher gave no address to meet at.
    """
    if place.count == 1:
        return None
    url = f"env://?rank={place.rank}&world_size={place.count}"
    try:
        store, _, _ = next(torch.distributed.rendezvous(url))
    except ValueError as error:
        raise ValueError(
            f"{place.count} processes were started without an address to meet at: {error}. "
            "Start them with accelerate launch, or set MASTER_ADDR and MASTER_PORT."
        ) from error
    return store


@contextmanager
def joined(place: Place, split_views: int, device: str) -> Iterator[Shares]:
    """This process's shares of every step's views; processes form torch's default group meanwhile.

    Raises:
        ValueError: the shares can't be dealt out evenly.
    """
    if place.count == 1:
        yield Shares(split_views, range(split_views))
        return
    if split_views % place.count:
        raise ValueError(
            f"split_views is {split_views} in {place.count} processes; expected a multiple of "
            f"{place.count} for one prompt, so that each has equally many shares of the views. "
            "--prompts FILE gives each process prompts of its own instead."
        )
    backend = "nccl" if device.startswith("cuda") else "gloo"
    torch.distributed.init_process_group(
        backend, store=meet(place), rank=place.rank, world_size=place.count
    )
    try:
        yield Shares(split_views, range(place.rank, split_views, place.count), spread=True)
    finally:
        torch.distributed.destroy_process_group()


def numbers(count: int, store: "Store | None") -> Iterator[int]:
    """Those of 0 to `count` - 1 that fall to this process; all of them without a store."""
    if store is None:
        yield from range(count)
        return
    while (number := store.add("next", 1) - 1) < count:
        yield number


def hand_in(failures: dict[str, str], place: Place, store: "Store | None") -> None:
    """Nothing; leaves what failed in this process, and why, for the first one."""
    if store is not None:
        store.set(f"failures {place.rank}", json.dumps(failures))


def collect(place: Place, store: "Store", seconds: float = 0.5) -> dict[str, str]:
    """What failed in any process; waits until all have handed in, looking every few `seconds`."""
    names = [f"failures {rank}" for rank in range(place.count)]
    while not store.check(names):
        time.sleep(seconds)
    return {what: why for name in names for what, why in json.loads(store.get(name)).items()}
