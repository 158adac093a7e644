"""The verdict: a planted slowdown is found, two equal runs are not called different, whatever the machine's drift."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from owm.bench.compare import Compared, compare, student_quantile
from owm.bench.record import Record

BASE = Record.of_members(json.loads((Path(__file__).parent / "llama_bench" / "with_md.json").read_text())[0])
TRIES = 200


def run(
    draw: random.Random,
    name: str,
    *,
    rate: float = 100.0,
    drift: float = 0.01,
    noise: float = 0.01,
    record: Record = BASE,
) -> Record:
    """One run: what the machine was like at that time moves all its samples, and some samples meet other work."""
    level = rate * math.exp(draw.gauss(0, drift))
    rates = [level * math.exp(draw.gauss(0, noise)) * (0.8 if draw.random() < 0.03 else 1) for _ in range(5)]
    return replace(record, samples_ts=tuple(rates), run_id=name, test_time=name)


def share(verdict: str, *, ratio: float, drift: float, noise: float, n_history: int = 0) -> float:
    draw = random.Random(1)
    n = 0
    for number in range(TRIES):
        known = [run(draw, f"h{i}", drift=drift, noise=noise) for i in range(n_history)]
        before = run(draw, f"a{number}", drift=drift, noise=noise)
        after = run(draw, f"b{number}", rate=100 * ratio, drift=drift, noise=noise)
        [found] = compare([before], [after], [*known, before, after])
        n += found.verdict == verdict
    return n / TRIES


@pytest.mark.parametrize(
    ("drift", "noise", "n_history"),
    [(0.005, 0.005, 0), (0.01, 0.01, 0), (0.015, 0.03, 0), (0.01, 0.05, 0), (0.04, 0.01, 12)],
)
def test_equal_runs_are_not_called_different_in_19_of_20_tries(drift: float, noise: float, n_history: int) -> None:
    assert share("no difference", ratio=1.0, drift=drift, noise=noise, n_history=n_history) >= 0.95


@pytest.mark.parametrize(("drift", "noise"), [(0.005, 0.005), (0.01, 0.01), (0.012, 0.01)])
def test_a_tenth_slower_is_found_between_two_single_runs(drift: float, noise: float) -> None:
    assert share("slower", ratio=0.9, drift=drift, noise=noise) >= 0.95
    assert share("faster", ratio=1 / 0.9, drift=drift, noise=noise) >= 0.95


def disturbed(draw: random.Random, name: str, *, rate: float = 100.0, by: float, drift: float) -> Record:
    """A run on a busy machine: other work slows whole stretches of it by up to `by`, and all of it a little."""
    level = rate * math.exp(draw.gauss(0, drift))
    rates = [level * (1 - draw.uniform(0.0, by) * (draw.random() < 0.7)) for _ in range(5)]
    quick = level * (1 - abs(draw.gauss(0, 0.01)))  # some steps of some sample met nobody
    return replace(BASE, samples_ts=tuple(rates), quick_ts=max(quick, *rates), run_id=name, test_time=name)


@pytest.mark.parametrize("n_history", [0, 12])
def test_equal_runs_on_a_busy_machine_are_not_called_different(n_history: int) -> None:
    draw = random.Random(8)
    n_same = 0
    for number in range(TRIES):
        known = [disturbed(draw, f"h{number}-{i}", by=0.3, drift=0.045) for i in range(n_history)]
        sides = [disturbed(draw, name, by=0.3, drift=0.045) for name in "ab"]
        n_same += compare(sides[:1], sides[1:], known)[0].verdict == "no difference"
    assert n_same / TRIES >= 0.93


def test_on_a_busy_machine_the_quickest_moments_tell_a_tenth_slower() -> None:
    draw = random.Random(8)
    n_slower = 0
    for number in range(TRIES):
        known = [disturbed(draw, f"h{number}-{i}", by=0.1, drift=0.01) for i in range(12)]
        before, after = (disturbed(draw, n, rate=r, by=0.1, drift=0.01) for n, r in (("a", 100), ("b", 90)))
        n_slower += compare([before], [after], known)[0].verdict == "slower"
    assert n_slower / TRIES >= 0.95


def taking_turns(draw: random.Random, ratio: float, n_turns: int = 7) -> tuple[list[Record], list[Record]]:
    """Two sets of runs, measured in turn on a machine that becomes another one every minute."""
    sides: tuple[list[Record], list[Record]] = ([], [])
    for number in range(n_turns):
        weather = math.exp(draw.gauss(0, 0.15))
        for is_after in draw.sample([False, True], 2):
            time = f"2026-11-23T07:{number:02d}:{len(sides[0]) + len(sides[1]):02d}Z"
            record = run(draw, time, rate=100 * weather * (ratio if is_after else 1), drift=0.02)
            sides[is_after].append(replace(record, test_time=time))
    return sides


def test_runs_that_took_turns_are_compared_turn_by_turn() -> None:
    draw = random.Random(5)
    n_same = n_slower = 0
    for _ in range(TRIES):
        n_same += compare(*taking_turns(draw, 1.0))[0].verdict == "no difference"
        n_slower += compare(*taking_turns(draw, 0.9))[0].verdict == "slower"
    assert n_same / TRIES >= 0.95
    assert n_slower / TRIES >= 0.95
    before, after = taking_turns(draw, 0.9)
    later = [replace(record, test_time=f"2026-11-24{record.test_time[10:]}") for record in after]
    assert compare(before, later)[0].verdict == "no difference", "one after the other, the weather decides"


def test_the_rates_of_two_records_are_of_one_kind() -> None:
    mine = replace(BASE, samples_ts=(90.0, 91.0, 92.0), quick_ts=110.0, run_id="a")
    theirs = replace(BASE, samples_ts=(90.0, 91.0, 92.0), quick_ts=0.0, run_id="b")
    assert compare([mine], [theirs])[0].ratio == pytest.approx(1)


def test_a_tenth_slower_is_found_on_a_drifting_machine_from_several_runs() -> None:
    draw = random.Random(2)
    n = 0
    for _ in range(TRIES):
        before = [run(draw, f"a{i}", drift=0.04) for i in range(8)]
        after = [run(draw, f"b{i}", rate=90, drift=0.04) for i in range(8)]
        n += compare(before, after)[0].verdict == "slower"
    assert n / TRIES >= 0.95


def test_what_history_knows_of_the_machine_widens_or_narrows_the_interval() -> None:
    draw = random.Random(3)
    before, after = run(draw, "a"), run(draw, "b")

    def width(drift: float) -> float:
        known = [run(draw, f"h{i}", drift=drift, noise=0.001) for i in range(20)]
        [found] = compare([before], [after], known)
        return found.high / found.low

    alone = compare([before], [after])[0]
    assert width(0.0) < alone.high / alone.low < width(0.1)


def test_a_change_that_came_long_ago_is_no_drift() -> None:
    draw = random.Random(7)
    before, after = run(draw, "a"), run(draw, "b")
    steady = [run(draw, f"h{i}", drift=0.005) for i in range(16)]
    changed = [
        replace(record, samples_ts=tuple(rate * (0.5 if i < 8 else 1) for rate in record.samples_ts))
        for i, record in enumerate(steady)
    ]
    [one], [other] = compare([before], [after], steady), compare([before], [after], changed)
    assert other.high / other.low == pytest.approx(one.high / one.low, rel=0.01)


def test_the_runs_that_are_compared_are_no_evidence_of_how_much_runs_differ() -> None:
    draw = random.Random(4)
    before, after = run(draw, "a", drift=0, noise=0.002), run(draw, "b", rate=50, drift=0, noise=0.002)
    assert compare([before], [after], [before, after]) == compare([before], [after])


def test_the_history_of_another_machine_or_build_is_not_mixed_in() -> None:
    draw = random.Random(5)
    before, after = run(draw, "a"), run(draw, "b")
    known = [
        replace(run(draw, f"h{i}", rate=100 * 2**i), machine={"fingerprint": str(i)}, build_commit=str(i))
        for i in range(6)
    ]
    assert compare([before], [after], known) == compare([before], [after])


def test_several_cases_share_the_risk_of_a_wrong_verdict() -> None:
    draw = random.Random(6)
    records = [replace(BASE, n_prompt=n, test=f"pp{n}") for n in (16, 32, 64, 128)]
    n = 0
    for _ in range(TRIES):
        before = [run(draw, "a", record=record) for record in records]
        after = [run(draw, "b", record=record) for record in records]
        n += any(one.verdict != "no difference" for one in compare(before, after))
    assert n / TRIES <= 0.05


def test_a_moment_of_other_work_in_one_sample_decides_nothing() -> None:
    before = replace(BASE, samples_ts=(100.0, 101.0, 99.0, 100.5, 99.5), run_id="a")
    after = replace(BASE, samples_ts=(100.0, 20.0, 99.0, 100.5, 99.5), run_id="b")
    [found] = compare([before], [after])
    assert found.verdict == "no difference"
    assert found.ratio == pytest.approx(0.995, abs=0.006)


def test_cases_are_matched_by_model_work_and_settings() -> None:
    one, two = replace(BASE, n_threads=1), replace(BASE, n_threads=2)
    found = compare([one, two], [two, one])
    assert [each.ratio for each in found] == [1.0, 1.0]
    assert all(not each.settings for each in found)
    [changed] = compare([one], [two])
    assert changed.settings == "n_threads 1 → 2"
    moved = replace(BASE, model_filename="/elsewhere/" + BASE.model_filename)
    assert len(compare([BASE], [moved])) == 1
    assert compare([BASE], [replace(BASE, n_prompt=17)]) == []
    assert compare([BASE], [replace(BASE, n_parallel=2)]) == []


def test_a_regression_is_slower_beyond_the_noise_and_by_enough() -> None:
    def found(ratio: float, low: float, high: float) -> Compared:
        return Compared("m", "pp1", "", 1, 1, ratio, low, high, 1, 1)

    assert found(0.9, 0.85, 0.95).is_regression(0.05)
    assert not found(0.97, 0.96, 0.98).is_regression(0.05)
    assert not found(0.9, 0.7, 1.1).is_regression(0.05)
    assert not found(1.1, 1.05, 1.15).is_regression(0.0)


@pytest.mark.parametrize(
    ("share", "freedom", "expected"),
    [(0.975, 1, 12.706), (0.975, 4, 2.776), (0.975, 10, 2.228), (0.995, 30, 2.750), (0.9875, 10, 2.634)],
)
def test_quantiles_are_those_of_students_tables(share: float, freedom: float, expected: float) -> None:
    assert student_quantile(share, freedom) == pytest.approx(expected, abs=6e-4)
