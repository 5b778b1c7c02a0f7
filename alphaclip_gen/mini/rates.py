"""Shares of right answers with their 95 % intervals."""

import math

from jaxtyping import Bool
from torch import Tensor


def wilson(hits: float | int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson, 1927)."""
    share, weight = hits / trials, z * z / trials
    middle = (share + weight / 2) / (1 + weight)
    reach = z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials)) / (1 + weight)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def rate(right: Bool[Tensor, " trials"]) -> dict[str, float]:
    """The share of right answers as "rate", with "low" and "high" ends of its interval.

    Raises:
        ValueError: there are no answers.
    """
    if not len(right):
        raise ValueError("right has no entries; expected at least one answer.")
    return proportion(int(right.sum()), len(right))


def mean_rate(right: Bool[Tensor, "groups answers"]) -> dict[str, float]:
    """The same, each group of answers counting as one trial: its share of right ones."""
    return proportion(right.float().mean(1).sum().item(), len(right))


def proportion(hits: float | int, trials: int) -> dict[str, float]:
    """The same from numbers, rounded to four digits."""
    low, high = wilson(hits, trials)
    return {"rate": round(hits / trials, 4), "low": round(low, 4), "high": round(high, 4)}


def shown(figure: dict[str, float], digits: int = 2) -> str:
    """A rate with its interval: "0.83 (0.79 to 0.87)"."""
    low, high = (f"{figure[end]:.{digits}f}" for end in ("low", "high"))
    return f"{figure['rate']:.{digits}f} ({low} to {high})"
