"""A number that changes over a run, whose progress is 0 to 1."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ramp:
    """`first` until `begin`, `last` from `end` on, linear between; 0 outside its window."""

    first: float
    last: float
    begin: float = 0.0
    end: float = 1.0
    since: float = 0.0
    """The window opens here: 0 before."""
    until: float = 1.0
    """The window closes here: 0 after."""

    def __call__(self, progress: float) -> float:
        if not self.since <= progress <= self.until:
            return 0.0
        span = max(self.end - self.begin, 1e-9)
        way = min(max((progress - self.begin) / span, 0.0), 1.0)
        return self.first + (self.last - self.first) * way


def constant(value: float, since: float = 0.0, until: float = 1.0) -> Ramp:
    """The same number all through a window, 0 outside."""
    return Ramp(value, value, since=since, until=until)


def stage(grow_at: tuple[float, ...], progress: float) -> int:
    """How many of the times have come."""
    return sum(progress >= time for time in grow_at)
