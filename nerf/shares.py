"""The views of one step in equal shares: in turn, or spread over processes, gradients averaged.

Each share draws from a generator of its own, so what is made depends on the number of shares, not
on who works them off: one process in turn (less memory), or several at once.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from cameras import Cameras

T = TypeVar("T")


class PeerLost(RuntimeError):
    """A process that works on the same run has ended."""


@dataclass(frozen=True)
class Shares:
    """`count` shares in all, of which this process works off `mine`."""

    count: int = 1
    mine: Sequence[int] = (0,)
    spread: bool = False
    """Whether other processes of torch's default group work off the rest."""

    def parts(self, generator: torch.Generator) -> Iterator[tuple[int, torch.Generator]]:
        """This process's shares, each with its generator; one share alone keeps the given one."""
        if self.count == 1:
            yield 0, generator
            return
        seed = int(torch.randint(2**62, (1,), generator=generator))
        for share in self.mine:
            yield share, torch.Generator().manual_seed(seed + share)

    def of(self, cameras: Cameras, share: int) -> Cameras:
        """The cameras of one share, of all of a step's."""
        size = len(cameras.position) // self.count
        part = slice(share * size, (share + 1) * size)
        return Cameras(cameras.position[part], cameras.rotation[part], cameras.field_of_view)

    @torch.no_grad()
    def average(
        self, parameters: Iterable[torch.nn.Parameter], numbers: Sequence[dict[str, float]]
    ) -> dict[str, float]:
        """Means over all shares of their numbers; sums of gradients become means too.

        Args:
            parameters: with `.grad` summed over this process's shares; changed in place.
            numbers: of each of this process's shares, with the same keys everywhere.

        Raises:
            PeerLost: another process has ended.
        """
        if self.count == 1:
            return numbers[0]
        gradients = [_gradient(parameter) for parameter in parameters]
        names = list(numbers[0])
        rows = [[part[name] for name in names] for part in numbers]
        sums = torch.tensor(rows, dtype=torch.float64).sum(dim=0).to(gradients[0].device)
        for values in (*gradients, sums):
            values.div_(self.count)
            if self.spread:
                with _peers():
                    torch.distributed.all_reduce(values)
        return dict(zip(names, sums.tolist(), strict=True))

    @property
    def leads(self) -> bool:
        """Whether this process is the one that reads and writes files."""
        return 0 in self.mine

    def from_first(self, data: T) -> T:
        """The first process's data, in every process."""
        box = [data]
        if self.spread:
            with _peers():
                torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    @torch.no_grad()
    def agree(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Nothing; every process gets the first one's values."""
        if self.spread:
            with _peers():
                for parameter in parameters:
                    torch.distributed.broadcast(parameter, src=0)


WHOLE = Shares()
"""All views at once."""


@contextmanager
def _peers() -> Iterator[None]:
    """Says what has happened when the others are gone."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost("another process ended before the run was done.") from error


def _gradient(parameter: torch.nn.Parameter) -> Tensor:
    """The gradient, zeros where there is none, ready for collective operations."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    parameter.grad = parameter.grad.contiguous()
    return parameter.grad
