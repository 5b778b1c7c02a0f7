"""Time by a clock of our own, and memory by hand."""

from functools import partial

import pytest
import torch

from alphaclip_gen.measuring import Pair, against, compare, model_bytes, peak_bytes

CPU = torch.device("cpu")


class FakeTime:
    """A clock that only the cases move; each call may take longer than the one before."""

    def __init__(self, slowdown=0.0):
        self.now, self.calls, self.slowdown = 0.0, [], slowdown

    def case(self, name, seconds):
        def spend():
            self.now += seconds * (1 + self.slowdown * len(self.calls))
            self.calls.append(name)

        return partial(spend)

    def clock(self):
        return self.now


# Time


def test_every_call_stands_next_to_one_of_the_first_case():
    fake = FakeTime()
    cases = {name: fake.case(name, seconds) for name, seconds in (("a", 2), ("b", 3), ("c", 1))}
    found = compare(cases, 3, fake.clock)
    assert "".join(fake.calls) == "abc" + "abac" + "baca" + "abac"
    assert found == {"a": (2, 1, 1, 1), "b": (3, 1.5, 1.5, 1.5), "c": (1, 0.5, 0.5, 0.5)}


def test_one_case_alone_is_timed_too():
    fake = FakeTime(slowdown=1.0)
    assert compare({"a": fake.case("a", 1.0)}, 3, fake.clock) == {"a": (3.0, 1, 1, 1)}


def test_short_cases_take_more_turns():
    fake = FakeTime()
    compare({name: fake.case(name, 1.0) for name in "ab"}, 2, fake.clock, seconds=10.0)
    assert len(fake.calls) == 2 + 2 * 5
    fake = FakeTime()
    compare({name: fake.case(name, 9.0) for name in "ab"}, 2, fake.clock, seconds=10.0)
    assert len(fake.calls) == 2 + 2 * 2


def test_ratio_is_the_median_of_the_rounds_with_its_quartiles():
    # Ratios 2, 1.5, 4, 1, 3: not the ratio of the medians, 6 / 2.
    rounds = zip([2.0, 6.0, 8.0, 5.0, 9.0], [1.0, 4.0, 2.0, 5.0, 3.0], strict=True)
    assert against([Pair(*both) for both in rounds]) == (6.0, 2.0, 1.5, 3.0)


def test_a_machine_that_slows_down_does_not_count():
    fake = FakeTime(slowdown=0.05)
    found = compare({name: fake.case(name, 1.0) for name in "ab"}, 20, fake.clock)
    assert found["b"].ratio == pytest.approx(1, abs=2e-3)
    assert found["b"].low < 0.99 and found["b"].high > 1.01  # each round alone is off


# Memory


def test_peak_is_what_is_held_at_once():
    def work():
        first = torch.empty(1000)
        second = torch.empty(2000)
        del first
        third = torch.empty(500)
        return second, third

    assert peak_bytes(work, CPU) == 4 * (1000 + 2000)


def test_the_profiler_stays_silent(capfd):
    peak_bytes(lambda: torch.empty(1), CPU)
    assert capfd.readouterr().err == ""


def test_bytes_of_weights_and_buffers():
    assert model_bytes(torch.nn.Linear(3, 2)) == 4 * (3 * 2 + 2)
    norm = torch.nn.BatchNorm1d(5).to(torch.float64)  # four of width 5, and a count
    assert model_bytes(norm) == 8 * 4 * 5 + 8
