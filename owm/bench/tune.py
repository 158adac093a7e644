"""Searching the tuning that computes a model fastest here: halving over values, then a duel with the defaults.

Whatever is compared is measured in turn, so that what else the machine does hits all alike, and what is chosen is
measured anew against what it would replace: the best of many is in part the luckiest. How to measure is handed in.
ref: K. Jamieson, A. Talwalkar, "Non-stochastic Best Arm Identification" (2016), successive halving
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median, stdev
from typing import Protocol

from owm.bench.choices import Axis
from owm.engine.tuning import DEFAULT, N_UBATCH, Tuning
from owm.errors import NotEnoughMemory, OwmError
from owm.events import Advanced, Finished, Sink, Started, ignore

STAGE = "tuning"
# What a tuning is good for: so many tokens read and so many made.
N_PROMPT, N_ANSWER = 512, 128
MIN_GAIN = 1.01  # less is not worth another setting, however sure it is
MAX_LOSS = 0.98  # of reading or of answering alone, for the sake of the other
MIN_PAIRS = 3
MAX_PAIRS, MAX_DUEL_PAIRS = 8, 24  # while searching, and with the defaults
Z = 2.576  # an interval of 99 %, since it is looked at again and again
WIDTHS = (1, 2, 4, 8, 16, 32, 64)
WORTH = 1.03  # times the rate: less is no reason for more answers side by side, each of which needs memory

_N_MEASUREMENTS = 90  # that the budget should allow, by which one is made as long as it is
_SEARCH_SHARE, _DUEL_SHARE = 0.6, 0.85  # of the budget, by when each has to end; widths take the rest
_HALVING_SHARE = 0.7  # of what there is for some values; the rest is for a duel
_START_SHARE = 0.1  # if seeing that took longer, nothing else than the defaults is begun with
_FIRST = (64, 8)  # tokens read and made to see how fast it is at all
_SLOW = 1.5  # times the best: measured once, that is enough to leave it


@dataclass(frozen=True, slots=True)
class Work:
    """What is done to measure: `n_prompt` tokens read, then `n_answer` made, by `n_parallel` sequences side by side."""

    n_prompt: int
    n_answer: int
    n_parallel: int = 1


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second of reading and of answering, None where there was no such work."""

    prompt: float | None
    answer: float | None

    @property
    def seconds(self) -> float:
        """What the typical work takes at these rates, as far as they are known."""
        read = N_PROMPT / self.prompt if self.prompt else 0.0
        return read + (N_ANSWER / self.answer if self.answer else 0.0)


class Measure(Protocol):
    """Does some work once with a tuning, the first time after warming up."""

    def __call__(self, tuning: Tuning, work: Work) -> Speed:
        """Return how fast it was.

        Raises:
            NotEnoughMemory, EngineError, UsageError, Unsupported: it cannot be done with this tuning.
        """
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a search.

    Attributes:
        tuning: what is left of it that is better than the defaults beyond the noise; `DEFAULT` if nothing is.
        gain: times as fast as the defaults, by `prompt`, `answer` and `batch`, measured anew.
        width: the rate of answers side by side, by their number.
    """

    tuning: Tuning
    gain: Mapping[str, float] = field(default_factory=dict)
    widths: Mapping[int, float] = field(default_factory=dict)
    n_measured: int = 0
    seconds: float = 0.0


def tune(
    measure: Measure,
    choices: Sequence[Axis],
    *,
    start: Tuning = DEFAULT,
    budget_seconds: float = 60.0,
    max_width: int = 1,
    began: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
    sink: Sink = ignore,
) -> Found:
    """Search within a budget, which is kept to about one measurement.

    Args:
        start: what holds now; the defaults are tried as well, and what is found is better than those.
        max_width: the most answers side by side that memory allows; 1 leaves their number to whoever answers many.
        began: when the budget began to be used, if that was before now, by `clock`.

    Raises:
        OwmError: the defaults cannot be measured.
    """
    return _Search(measure, choices, start, budget_seconds, max_width, began, clock, sink).run()


class _Search:
    """One search."""

    def __init__(
        self,
        measure: Measure,
        choices: Sequence[Axis],
        start: Tuning,
        budget_seconds: float,
        max_width: int,
        began: float | None,
        clock: Callable[[], float],
        sink: Sink,
    ) -> None:
        self._measure = measure
        self._choices = choices
        self._start = replace(start, n_parallel=None)
        self._max_width = max_width
        self._clock = clock
        self._sink = sink
        self._began = clock() if began is None else began
        self._budget = budget_seconds
        self._n = 0
        self._costs: dict[tuple[Tuning, Work], float] = {}  # the first time, with making a context and warming up
        self._bad: set[Tuning] = set()  # cannot be computed with
        self._first = Speed(None, None)  # of the defaults

    def run(self) -> Found:
        self._sink(Started(STAGE, None, "parts"))
        work = self._choose_work()
        if self._start != DEFAULT and not self._is_worth_starting_with(self._start):
            self._start = DEFAULT
        best = self._search(work)
        gain: dict[str, float] = {}
        if best != DEFAULT:
            work = Work(_n_prompt(work), work.n_answer)
            if not self._is_better(best, DEFAULT, work, _DUEL_SHARE, most=MAX_DUEL_PAIRS, gain=gain):
                best, gain = DEFAULT, {}
        widths = self._measure_widths(best) if self._max_width > 1 else {}
        if widths:
            most = max(widths.values())
            width = next(n for n, rate in sorted(widths.items()) if rate * WORTH >= most)
            best = replace(best, n_parallel=width)
            gain["batch"] = widths[width] / widths[1] if 1 in widths else 1.0
        seconds = self._clock() - self._began
        self._sink(Finished(STAGE, seconds))
        return Found(best, gain, widths, self._n, seconds)

    # -- measuring -------------------------------------------------------------------------------------------------

    def _spent(self) -> float:
        return (self._clock() - self._began) / self._budget

    def _has_time(self, share: float, *costs: float) -> bool:
        """Whether measurements that took so long before end by a share of the budget."""
        return self._spent() + sum(costs) / self._budget <= share

    def _cost(self, tuning: Tuning, work: Work) -> float:
        """Return what a measurement will take, from what it took, or such work did with other tunings."""
        known = self._costs.get((tuning, work))
        if known is not None:
            return known
        others = [each for (_, other), each in self._costs.items() if other == work]
        return max(others) if others else 2 * _seconds(work, self._first)

    def _take(self, tuning: Tuning, work: Work) -> Speed | None:
        """Measure once; None if that cannot be with this tuning."""
        if tuning in self._bad:
            return None
        began = self._clock()
        try:
            speed = self._measure(tuning, work)
        except (NotEnoughMemory, OwmError):
            if tuning == DEFAULT:
                raise
            self._bad.add(tuning)
            return None
        self._costs.setdefault((tuning, work), self._clock() - began)
        self._n += 1
        self._sink(Advanced(STAGE, self._n, _said(tuning)))
        return speed

    def _choose_work(self) -> Work:
        """Make one measurement so long that the budget has room for enough of them."""
        first = self._take(DEFAULT, Work(*_FIRST))
        assert first is not None
        assert first.prompt
        assert first.answer
        self._first = first
        each = self._budget / _N_MEASUREMENTS
        n_prompt = 1 << max(5, min(10, int(math.log2(max(1.0, first.prompt * each / 2)))))
        n_answer = max(4, min(64, int(first.answer * each / 4)))
        return Work(n_prompt, n_answer)

    def _is_worth_starting_with(self, tuning: Tuning) -> bool:
        """Tell whether it is not much slower than the defaults, as far as can be seen at once."""
        short = Work(*(n // 4 for n in _FIRST))
        if not self._has_time(_START_SHARE):
            return False
        speeds = [self._take(each, short) for each in (DEFAULT, tuning)]
        return all(speeds) and speeds[1].seconds < _SLOW * speeds[0].seconds  # type: ignore[union-attr]

    # -- searching -------------------------------------------------------------------------------------------------

    def _search(self, work: Work) -> Tuning:
        best = self._start
        for turn in range(2):
            before = best
            for number, axis in enumerate(self._choices):
                spent = self._spent()
                share = spent + (_SEARCH_SHARE - spent) / (len(self._choices) - number)
                best = self._along(axis, best, work, share)
            if best == before or not self._has_time(_SEARCH_SHARE / 2) or turn:
                break
        return best

    def _along(self, axis: Axis, best: Tuning, work: Work, share: float) -> Tuning:
        """Return the best tuning with the values of one axis, the present one unless another is surely better."""
        if axis.work == "prompt":
            work = Work(_n_prompt(work), 0)
        entrants = [best]
        for values in axis.values:
            with_values = _laid(best, values)
            is_same = any(_is_same(with_values, other, work) for other in entrants)
            if with_values is not None and not is_same and with_values not in self._bad:
                entrants.append(with_values)
        spent = self._spent()
        winner = self._halve(entrants, work, spent + _HALVING_SHARE * (share - spent))
        return winner if winner != best and self._is_better(winner, best, work, share) else best

    def _halve(self, entrants: Sequence[Tuning], work: Work, share: float) -> Tuning:
        """Measure all once, the better half twice, half of those four times, …; return the best of the last.

        The first of them is there already: it stays unless another seems to be worth the change.
        """
        present, alive, n_times = entrants[0], list(entrants), 1
        seconds: dict[Tuning, list[float]] = {tuning: [] for tuning in entrants}
        while len(alive) > 1:
            for turn in range(n_times):
                for tuning in alive[turn % len(alive) :] + alive[: turn % len(alive)]:
                    if not self._has_time(share, self._cost(tuning, work)):
                        return self._best(seconds, present)
                    if (speed := self._take(tuning, work)) is not None:
                        seconds[tuning].append(speed.seconds)
            alive = sorted((one for one in alive if seconds[one]), key=lambda one: median(seconds[one]))
            if not alive:
                return present
            quickest = median(seconds[alive[0]])
            alive = [one for one in alive if median(seconds[one]) < _SLOW * quickest]
            if len(alive) <= 2:
                break
            alive, n_times = alive[: math.ceil(len(alive) / 2)], 2 * n_times
        return self._best({one: seconds[one] for one in (present, *alive)}, present)

    def _best(self, seconds: Mapping[Tuning, Sequence[float]], present: Tuning) -> Tuning:
        measured = {tuning: median(each) for tuning, each in seconds.items() if each}
        best = min(measured, key=lambda one: measured[one], default=present)
        is_little = present in measured and measured[present] < MIN_GAIN * measured[best]
        return present if is_little else best

    def _is_better(
        self,
        one: Tuning,
        other: Tuning,
        work: Work,
        share: float,
        *,
        most: int = MAX_PAIRS,
        gain: dict[str, float] | None = None,
    ) -> bool:
        """Measure both in turn until one is better beyond the noise, or it is plain that it is not.

        Args:
            most: pairs of measurements.
            gain: takes how many times as fast the one is, where it is better.
        """
        ratios: list[float] = []
        parts: dict[str, list[float]] = {"prompt": [], "answer": []}
        cost = self._cost(one, work) + self._cost(other, work)
        least_share = max(share, _SEARCH_SHARE)  # fewer pairs say nothing at all
        while len(ratios) < most and self._has_time(share if len(ratios) >= MIN_PAIRS else least_share, cost):
            began = self._clock()
            pair = (one, other) if len(ratios) % 2 else (other, one)
            speeds = {tuning: self._take(tuning, work) for tuning in pair}
            of_one, of_other = speeds[one], speeds[other]
            if of_one is None:
                return False
            if of_other is None:
                return True
            cost = self._clock() - began
            ratios.append(math.log(of_other.seconds / of_one.seconds))
            for name, rate, other_rate in (
                ("prompt", of_one.prompt, of_other.prompt),
                ("answer", of_one.answer, of_other.answer),
            ):
                if rate and other_rate:
                    parts[name].append(math.log(rate / other_rate))
            if len(ratios) < MIN_PAIRS:
                continue
            low, high = _interval(ratios)
            if high < math.log(MIN_GAIN):
                return False
            if low > 0 and fmean(ratios) >= math.log(MIN_GAIN):
                break
        if len(ratios) < MIN_PAIRS or _interval(ratios)[0] <= 0 or fmean(ratios) < math.log(MIN_GAIN):
            return False
        if any(each and fmean(each) < math.log(MAX_LOSS) for each in parts.values()):
            return False
        if gain is not None:
            gain |= {name: math.exp(fmean(each)) for name, each in parts.items() if each}
        return True

    # -- side by side ----------------------------------------------------------------------------------------------

    def _measure_widths(self, tuning: Tuning) -> dict[int, float]:
        """Return the rate of answers side by side by their number; a number for which there is no time is left out."""
        widths = [n for n in WIDTHS if n < self._max_width] + [min(self._max_width, WIDTHS[-1])]
        rates: dict[int, list[float]] = {}
        for turn in range(2):
            for width in widths if not turn else list(rates):
                work = Work(1, 8, width)
                cost = self._costs.get((tuning, work)) or 2 * max(
                    (each for (_, other), each in self._costs.items() if other.n_parallel == width // 2), default=0.0
                )
                if not self._has_time(1.0, cost):
                    break
                speed = self._take(tuning, work)
                if speed is None or not speed.answer:
                    break
                rates.setdefault(width, []).append(speed.answer)
        return {width: max(each) for width, each in rates.items()} if len(rates) > 1 else {}


def _seconds(work: Work, speed: Speed) -> float:
    """Return how long some work takes at a speed."""
    read = work.n_prompt / speed.prompt if speed.prompt else 0.0
    return read + (work.n_answer / speed.answer if speed.answer else 0.0)


def _n_prompt(work: Work) -> int:
    """Return how many tokens to read where it matters how many are computed at once, unless that takes too long."""
    return max(work.n_prompt, N_UBATCH) if work.n_prompt > N_UBATCH // 8 else work.n_prompt


def _laid(tuning: Tuning, values: Mapping[str, object]) -> Tuning | None:
    """Lay values over a tuning, None where that cannot be."""
    try:
        return replace(tuning, **values)  # type: ignore[arg-type]
    except OwmError:
        return None


def _is_same(one: Tuning | None, other: Tuning, work: Work) -> bool:
    """Tell whether two tunings compute this work alike."""
    if one is None:
        return False
    most = max(1, work.n_prompt)
    sizes = [min(tuning.n_ubatch or N_UBATCH, most) for tuning in (one, other)]
    return sizes[0] == sizes[1] and replace(one, n_ubatch=None) == replace(other, n_ubatch=None)


def _interval(logarithms: Sequence[float]) -> tuple[float, float]:
    """Return the interval of a mean of logarithms of ratios. ref: Student's t, Abramowitz and Stegun 26.7.5"""
    n = len(logarithms) - 1
    first, second = (Z**3 + Z) / (4 * n), (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * n**2)
    third = (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / (384 * n**3)
    margin = (Z + first + second + third) * stdev(logarithms) / math.sqrt(len(logarithms))
    mean = fmean(logarithms)
    return mean - margin, mean + margin


def _said(tuning: Tuning) -> str:
    return ", ".join(f"{name} {value}" for name, value in tuning.said().items()) or "the defaults"
