"""Two sets of results against each other: the ratio of rates, its interval, and what that says.

Samples of one run are not independent witnesses: from run to run the machine is another one (what else it does, how
hot it is, where memory lies), and that moves all samples of a run together. So a run is one observation, and the
interval is Student's, with a variance of runs that is learnt from wherever several runs of the same case are known: in
both sets, and in the history of this machine. Where little is known it leans on a prior, so that two single runs can be
compared as well; how large that is, is an assumption and no measurement. Several cases are compared at once; the
intervals hold together, each is that much wider.

What else a machine does only ever slows a run down, so a run's rate is that of its quickest moments, which differ less
from run to run than its mean does (7 against 11 % on a busy virtual machine); the further the two are apart, the less
is known. Where a record does not tell (another program's), it is the median of its samples. Runs of the two sets that
took turns are compared turn by turn: then a machine that becomes slower moves both.
ref: A. Gelman and others, Bayesian Data Analysis, 3rd edition, 2.6: the scaled inverse chi-squared distribution as the
prior of a variance, after which the mean is Student's
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal

from owm.bench.record import Record

PRIOR_DEVIATION = 0.018  # of a run, as a share
PRIOR_FREEDOM = 6
ENOUGH_FREEDOM = 5
SAMPLE_DEVIATION = 0.02  # of a sample, where a run has only one
MAX_WAY = 0.2  # from a run's quickest moments to its median: however much more others slowed it, those were undisturbed
# Of that way, taken for a deviation: of 24 equal runs on a virtual machine, with ways of 4 and 10 %, each differed from
# the one before with deviations of 2.8 and 4.5 %.
DISTURBED_SHARE = 0.5
CONFIDENCE = 0.95
FAR = 6.0  # times the usual step: no drift, but a change
MIN_TURNS = 5
MAX_HISTORY = 20  # runs of a case from which its variance is learnt

Verdict = Literal["faster", "slower", "no difference"]
Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """One case before and after.

    Attributes:
        ratio: rate after / rate before; `low` and `high` are its interval.
        n_before, n_after: runs of which it is known.
    """

    model: str
    test: str
    settings: str
    before: float
    after: float
    ratio: float
    low: float
    high: float
    n_before: int
    n_after: int

    @property
    def verdict(self) -> Verdict:
        """What can be said beyond the noise."""
        return "faster" if self.low > 1 else "slower" if self.high < 1 else "no difference"

    def is_regression(self, share: float) -> bool:
        """Tell whether it is slower beyond the noise, by at least this share."""
        return self.verdict == "slower" and self.ratio <= 1 - share


def case_key(record: Record) -> Key:
    """Return what makes two results ones of the same case: the model, the work and the settings."""
    model = record.model_filename.replace("\\", "/").rpartition("/")[2]
    return (
        model, record.model_n_params, record.model_size, record.n_prompt, record.n_gen, record.n_depth,
        record.n_parallel, record.prompt_kind, record.n_batch, record.n_ubatch, record.type_k, record.type_v,
        record.flash_attn, record.n_gpu_layers, record.n_threads,
    )  # fmt: skip


def work_key(record: Record) -> Key:
    """Return the model and the work, whatever the settings: so different settings are compared."""
    model = record.model_filename.replace("\\", "/").rpartition("/")[2]
    return (
        model, record.model_n_params, record.n_prompt, record.n_gen, record.n_depth, record.n_parallel,
        record.prompt_kind,
    )  # fmt: skip


def compare(before: Sequence[Record], after: Sequence[Record], history: Sequence[Record] = ()) -> list[Compared]:
    """Compare the cases that both sets have; cases that each has once, with other settings, are compared too.

    Args:
        history: other results, from which it is learnt how much runs differ.
    """
    pairs = _pairs(before, after)
    if not pairs:
        return []
    confidence = 1 - (1 - CONFIDENCE) / len(pairs)
    known = _by_key(history)
    return [_compared(first, second, known, confidence) for first, second in pairs]


def _pairs(before: Sequence[Record], after: Sequence[Record]) -> list[tuple[list[Record], list[Record]]]:
    olds, news = _by_key(before), _by_key(after)
    found = [(olds[key], records) for key, records in news.items() if key in olds]
    rest_old = [records for key, records in olds.items() if key not in news]
    rest_new = [records for key, records in news.items() if key not in olds]
    for records in rest_new:
        key = work_key(records[0])
        same_new = [each for each in rest_new if work_key(each[0]) == key]
        same_old = [each for each in rest_old if work_key(each[0]) == key]
        if len(same_new) == len(same_old) == 1:
            found.append((same_old[0], records))
    return found


def _by_key(records: Sequence[Record]) -> dict[Key, list[Record]]:
    found: dict[Key, list[Record]] = {}
    for record in records:
        found.setdefault(case_key(record), []).append(record)
    return found


def _compared(
    before: Sequence[Record], after: Sequence[Record], known: Mapping[Key, Sequence[Record]], confidence: float
) -> Compared:
    is_quick = all(record.quick_ts > 0 for record in (*before, *after))
    sides = [[location(record, is_quick=is_quick) for record in side] for side in (before, after)]
    log_ratio = statistics.fmean(sides[1]) - statistics.fmean(sides[0])
    within = _within((*before, *after), is_quick=is_quick)
    if (turns := _turns(before, after, is_quick=is_quick)) is not None:
        squares = sum((value - statistics.fmean(turns)) ** 2 for value in turns)
        # A turn is a difference of two runs: twice the variance, here of one.
        spread = _spread(squares / 2, len(turns) - 1, within, (1 + confidence) / 2, enough=MIN_TURNS - 1)
    else:
        compared = {_identity(record) for record in (*before, *after)}
        squares = sum((value - statistics.fmean(side)) ** 2 for side in sides for value in side)
        freedom = sum(len(side) - 1 for side in sides)
        for record in {case_key(side[0]): side[0] for side in (before, after)}.values():
            others = [each for each in known.get(case_key(record), ()) if _identity(each) not in compared]
            for group in _like(others, is_quick=is_quick):
                variance, n = _from_run_to_run(group)
                squares, freedom = squares + n * variance, freedom + n
        spread = _spread(squares, freedom, within, (1 + confidence) / 2)
    margin = math.sqrt(1 / len(before) + 1 / len(after)) * spread
    first = after[0]
    return Compared(
        model=first.model or first.model_type,
        test=first.test,
        settings=_difference(before[0], first),
        before=math.exp(statistics.fmean(sides[0])),
        after=math.exp(statistics.fmean(sides[1])),
        ratio=math.exp(log_ratio),
        low=math.exp(log_ratio - margin),
        high=math.exp(log_ratio + margin),
        n_before=len(before),
        n_after=len(after),
    )


def _turns(before: Sequence[Record], after: Sequence[Record], *, is_quick: bool) -> list[float] | None:
    """Return after - before of each pair of runs that followed each other, None where the two sides took no turns."""
    runs = sorted(
        [*((each, False) for each in before), *((each, True) for each in after)], key=lambda run: run[0].test_time
    )
    pairs = list(zip(runs[::2], runs[1::2], strict=False))
    if len(before) != len(after) or len(pairs) < MIN_TURNS or any(a[1] == b[1] for a, b in pairs):
        return None
    both = [(a, b) if b[1] else (b, a) for a, b in pairs]
    return [location(new[0], is_quick=is_quick) - location(old[0], is_quick=is_quick) for old, new in both]


def location(record: Record, *, is_quick: bool) -> float:
    """Return the logarithm of a run's rate: in its quickest moments, or the median of its samples."""
    return math.log(record.quick_ts) if is_quick else _median(record)


def _median(record: Record) -> float:
    return statistics.median(math.log(rate) for rate in record.samples_ts)


def _identity(record: Record) -> Key:
    return record.run_id, record.test_time, record.samples_ns


def _spread(squares: float, freedom: int, within: float, share: float, *, enough: int = ENOUGH_FREEDOM) -> float:
    """Return the deviation of a run times Student's quantile.

    Where runs were seen to differ more than the prior says, and often enough, the prior counts for nothing.
    """
    prior = PRIOR_DEVIATION**2 + within
    n = PRIOR_FREEDOM + freedom
    found = math.sqrt((PRIOR_FREEDOM * prior + squares) / n) * student_quantile(share, n)
    if freedom >= enough and squares / freedom > prior:
        found = max(found, math.sqrt(squares / freedom) * student_quantile(share, freedom))
    return found


def _within(records: Sequence[Record], *, is_quick: bool) -> float:
    """Return the variance of `location` by the samples' own spread, which single ones that are far off do not move."""
    if is_quick:
        way = statistics.fmean(max(0.0, math.log(record.quick_ts) - _median(record)) for record in records)
        return (DISTURBED_SHARE * min(way, MAX_WAY)) ** 2
    n_samples = statistics.fmean(len(record.samples_ts) for record in records)
    if n_samples < 2:
        return SAMPLE_DEVIATION**2
    off = [abs(math.log(rate) - _median(record)) for record in records for rate in record.samples_ts]
    deviation = 1.4826 * statistics.median(off) * n_samples / (n_samples - 0.8)
    return math.pi / 2 * deviation**2 / n_samples


def _like(records: Sequence[Record], *, is_quick: bool) -> list[list[float]]:
    """Part results of one case into those that should be alike: one machine, one build, one owm."""
    found: dict[Key, list[float]] = {}
    for record in [each for each in records if each.quick_ts > 0 or not is_quick][-MAX_HISTORY:]:
        key = (record.machine.get("fingerprint"), record.build_commit, record.library, record.owm_version)
        found.setdefault(key, []).append(location(record, is_quick=is_quick))
    return [group for group in found.values() if len(group) > 1]


def _from_run_to_run(values: Sequence[float]) -> tuple[float, int]:
    """Return the variance of runs from those that followed each other, and its degrees of freedom.

    What changed for good at some time (another governor, a fan that was cleaned, a change of the code) is one step
    among many, and is left out. ref: J. von Neumann and others, The Mean Square Successive Difference (1941)
    """
    steps = [abs(after - before) for before, after in pairwise(values)]
    usual = [step for step in steps if step <= FAR * statistics.median(steps)]
    return statistics.fmean(step * step for step in usual) / 2, max(1, round(2 * len(usual) / 3))


def _difference(before: Record, after: Record) -> str:
    """Say in which settings two results differ: `n_threads 1 → 2`."""
    names = ("n_batch", "n_ubatch", "type_k", "type_v", "flash_attn", "n_gpu_layers", "n_threads", "build_commit",
        "owm_version")  # fmt: skip
    changes = [(name, getattr(before, name), getattr(after, name)) for name in names]
    return ", ".join(f"{name} {old} → {new}" for name, old, new in changes if old != new and (old or new))


@cache
def student_quantile(share: float, freedom: int) -> float:
    """Return the quantile of Student's distribution, by bisection of its distribution function."""
    low, high = 0.0, 1e4
    for _ in range(60):
        middle = (low + high) / 2
        if _student(middle, freedom) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _student(t: float, freedom: int) -> float:
    """Return the distribution function of Student's distribution at t >= 0."""
    x = freedom / (freedom + t * t)
    return 1 - _beta(x, freedom / 2, 0.5) / 2


def _beta(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function, by Lentz's continued fraction.

    ref: W. H. Press and others, Numerical Recipes, 3rd edition, 6.4
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    tiny = 1e-300
    c, d = 1.0, 1 / max(1 - (a + b) * x / (a + 1), tiny)
    h = d
    for m in range(1, 400):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away(1 + step * d, tiny)
            c = _away(1 + step / c, tiny)
            h *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return front * h / a


def _away(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
