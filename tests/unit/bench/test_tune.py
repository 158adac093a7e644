"""Searching the best tuning, on made-up machines whose best is known: with noise, drift, and a clock of their own."""

import random
from collections.abc import Callable
from itertools import product

import pytest

from owm.bench.choices import Axis, axes
from owm.bench.tune import Found, Speed, Work, tune
from owm.engine.tuning import DEFAULT, Tuning
from owm.errors import EngineError, NotEnoughMemory, UsageError

BAD = Tuning(n_threads=1, n_ubatch=16, n_parallel=1)


class MadeUp:
    """A machine that takes as long as a formula says, times some noise, and lets its own clock go on so long."""

    def __init__(
        self,
        rates: Callable[[Tuning], tuple[float, float]],
        *,
        noise: float = 0.02,
        seed: int = 1,
        drift: float = 0.0,
        overhead: float = 0.05,
    ) -> None:
        self.now = 100.0
        self.done: list[tuple[Tuning, Work]] = []
        self._rates = rates
        self._noise = noise
        self._drift = drift
        self._overhead = overhead
        self._random = random.Random(seed)
        self._seen: set[tuple[Tuning, Work]] = set()

    def clock(self) -> float:
        return self.now

    def __call__(self, tuning: Tuning, work: Work) -> Speed:
        prompt, answer = self._rates(tuning)
        slow = 1 + self._drift * (self.now - 100.0)
        prompt, answer = (rate / slow * (1 + self._random.gauss(0, self._noise)) for rate in (prompt, answer))
        answer *= min(work.n_parallel, 8) ** 0.7
        times = 1 if (tuning, work) in self._seen else 2  # warming up
        self._seen.add((tuning, work))
        self.done.append((tuning, work))
        seconds = work.n_prompt / prompt + work.n_answer * work.n_parallel / answer
        self.now += self._overhead * (times - 1) + times * seconds
        if work.n_parallel > 1 or not work.n_answer:
            return Speed(None, answer) if work.n_answer else Speed(prompt, None)
        return Speed(prompt, answer)

    def cost(self, tuning: Tuning) -> float:
        prompt, answer = self._rates(tuning)
        return 512 / prompt + 128 / answer


def many_cores(tuning: Tuning) -> tuple[float, float]:
    """More threads read faster; answers are limited by memory, and by too many threads."""
    threads = tuning.n_threads or 8
    ubatch = tuning.n_ubatch or 512
    prompt = 60.0 * min(threads, 8) * (1.0 if threads <= 8 else 0.9) * (1 - 8 / (ubatch + 8))
    prompt *= {64: 0.7, 128: 1.12, 256: 1.05}.get(ubatch, 1.0)
    answer = 70.0 * min(threads, 6) / 6 * (1 - 0.03 * max(0, threads - 6))
    if tuning.flash_attention is False:
        prompt, answer = prompt * 0.9, answer * 0.95
    if tuning.type_k == "q8_0":
        answer *= 0.97
    return prompt, answer


CHOICES = axes(n_cores=8, n_threads=16)


def found(machine: MadeUp, **how: object) -> Found:
    return tune(machine, CHOICES, clock=machine.clock, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("start", [DEFAULT, BAD], ids=["defaults", "planted bad settings"])
@pytest.mark.parametrize("seed", range(5))
def test_it_comes_near_the_best_of_the_whole_grid(start: Tuning, seed: int) -> None:
    machine = MadeUp(many_cores, seed=seed)
    best = min(
        machine.cost(Tuning(n_threads=threads, n_ubatch=ubatch, flash_attention=flash, type_k=kind, type_v=kind))
        for threads, ubatch, flash, kind in product(
            (1, 4, 6, 7, 8, 16), (64, 128, 256, 512, 1024), (None, False), (None, "q8_0")
        )
        if flash is None or kind is None
    )
    assert best / machine.cost(found(machine, start=start).tuning) >= 0.97


@pytest.mark.parametrize("seconds", [10.0, 60.0])
@pytest.mark.parametrize("scale", [0.02, 0.3, 1.0, 10.0])
@pytest.mark.parametrize("start", [DEFAULT, BAD], ids=["defaults", "planted bad settings"])
def test_the_budget_is_kept_for_fast_models_and_slow_ones(seconds: float, scale: float, start: Tuning) -> None:
    machine = MadeUp(lambda tuning: tuple(scale * rate for rate in many_cores(tuning)))  # type: ignore[arg-type,return-value]
    first = 2 * (64 / (480 * scale) + 8 / (66 * scale)) + 0.05  # without one measurement nothing can be said at all
    result = found(machine, start=start, budget_seconds=seconds, max_width=16)
    assert result.seconds <= max(1.2 * seconds, 1.2 * first)
    assert result.seconds == pytest.approx(machine.now - 100.0)


def test_noise_alone_is_no_reason_to_leave_the_defaults() -> None:
    left = sum(
        found(MadeUp(lambda tuning: (400.0, 60.0), noise=0.05, seed=seed)).tuning != DEFAULT for seed in range(40)
    )
    assert left <= 1


def test_what_is_kept_is_really_faster_however_noisy_the_machine() -> None:
    for seed in range(20):
        machine = MadeUp(many_cores, noise=0.15, seed=seed, drift=0.01)
        result = found(machine)
        assert machine.cost(result.tuning) <= machine.cost(DEFAULT) * 1.005


def test_a_machine_that_becomes_slower_meanwhile_hits_all_alike() -> None:
    machine = MadeUp(lambda tuning: (400.0, 60.0), drift=0.02)
    assert found(machine).tuning == DEFAULT


def test_reading_faster_does_not_pay_for_answering_more_slowly() -> None:
    def greedy(tuning: Tuning) -> tuple[float, float]:
        return (400.0, 54.0) if tuning.n_threads == 16 else (100.0, 60.0)

    assert found(MadeUp(greedy)).tuning == DEFAULT


def test_the_gain_is_measured_against_the_defaults_for_reading_and_answering() -> None:
    result = found(MadeUp(lambda tuning: (800.0, 61.0) if tuning.n_ubatch == 128 else (400.0, 61.0)))
    assert result.tuning == Tuning(n_ubatch=128)
    assert result.gain["prompt"] == pytest.approx(2, rel=0.05)
    assert result.gain["answer"] == pytest.approx(1, rel=0.05)


def test_what_cannot_be_computed_is_left_out() -> None:
    machine = MadeUp(lambda tuning: (900.0, 90.0) if tuning.n_threads == 4 else (400.0, 60.0))

    def refusing(tuning: Tuning, work: Work) -> Speed:
        if tuning.flash_attention is not None:
            raise EngineError("no such attention")
        if tuning.n_ubatch is not None and tuning.n_ubatch > 512:
            raise NotEnoughMemory("no room", needed=2, free=1)
        return machine(tuning, work)

    assert tune(refusing, CHOICES, clock=machine.clock).tuning == Tuning(n_threads=4)


def test_an_error_of_the_defaults_is_nobody_elses() -> None:
    def failing(tuning: Tuning, work: Work) -> Speed:
        raise EngineError("broken")

    with pytest.raises(EngineError, match=r"^broken$"):
        tune(failing, CHOICES)


def test_the_fewest_answers_side_by_side_that_come_near_the_best_rate() -> None:
    result = found(MadeUp(many_cores, noise=0.002), max_width=32)
    assert result.tuning.n_parallel == 8
    assert set(result.widths) == {1, 2, 4, 8, 16, 32}
    assert result.gain["batch"] == pytest.approx(8**0.7, rel=0.05)


def test_without_room_for_two_their_number_is_left_to_the_batch() -> None:
    assert found(MadeUp(many_cores)).tuning.n_parallel is None


def test_values_are_measured_in_turn() -> None:
    machine = MadeUp(many_cores)
    found(machine)
    runs = [tuning for tuning, _ in machine.done]
    longest = max(len(list(same)) for same in _runs(runs))
    assert longest <= 4


def _runs(tunings: list[Tuning]) -> list[list[Tuning]]:
    runs: list[list[Tuning]] = []
    for tuning in tunings:
        if runs and runs[-1][-1] == tuning:
            runs[-1].append(tuning)
        else:
            runs.append([tuning])
    return runs


def test_every_choice_holds_the_default_and_makes_sense() -> None:
    for n_cores, n_threads in ((1, 1), (2, 2), (6, 12), (64, 128)):
        for axis in axes(n_cores=n_cores, n_threads=n_threads, n_layers=28):
            assert any(all(value is None for value in values.values()) for values in axis.values)
            for values in axis.values:
                Tuning(**values)  # type: ignore[arg-type]
        threads = axes(n_cores=n_cores, n_threads=n_threads)[0]
        counts = [values["n_threads"] or n_cores for values in threads.values]
        assert len(set(counts)) == len(counts)
        assert set(counts) <= set(range(1, n_threads + 1))


def test_layers_are_chosen_only_where_there_is_a_gpu() -> None:
    assert "layers" not in [axis.name for axis in axes(n_cores=2, n_threads=2)]
    assert axes(n_cores=2, n_threads=2, n_layers=28)[0].name == "layers"


def test_values_that_contradict_what_is_there_are_passed_over() -> None:
    with pytest.raises(UsageError):
        Tuning(flash_attention=False, type_k="q8_0", type_v="q8_0")
    machine = MadeUp(lambda tuning: (400.0, 60.0))
    only = (Axis("types", ({"type_v": "q8_0"},)),)
    assert tune(machine, only, start=Tuning(flash_attention=False), clock=machine.clock).tuning == DEFAULT
