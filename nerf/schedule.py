"""A number that changes over a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ramp:
    """`first` until `begin`, `last` from `end` on, linear between; progress is 0 to 1."""

    first: float
    last: float
    begin: float = 0.0
    end: float = 1.0

    def __call__(self, progress: float) -> float:
        span = max(self.end - self.begin, 1e-9)
        way = min(max((progress - self.begin) / span, 0.0), 1.0)
        return self.first + (self.last - self.first) * way
