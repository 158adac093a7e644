"""Measuring: what is computed is what the case says, in rounds, and contexts and models are kept or made anew."""

import itertools
import mmap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owm.bench import rounds
from owm.bench.case import Case, Subject
from owm.bench.cost import cost_of
from owm.bench.measure import open_workload
from owm.bench.record import Build, Limits, record_of
from owm.bench.rounds import groups, measure_cases
from owm.engine.model import Model
from owm.engine.tuning import Tuning
from owm.errors import EngineError
from owm.events import Advanced, Event, Finished, Started
from owm.formats import gguf
from owm.hardware import resident
from owm.native import llama
from support.tiny_gguf import write_tiny_gguf
from support.tiny_moe import write_tiny_moe
from support.tiny_recurrent import write_tiny_mamba

ONE = Tuning(n_threads=1)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("m") / "tiny.gguf")


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[Model]:
    with Model([path]) as opened:
        yield opened


@pytest.fixture
def subject(path: Path) -> Subject:
    return Subject("tiny", (path,))


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, int]]]:
    """The tokens of each decode, as positions and sequences."""
    seen: list[list[tuple[int, int]]] = []
    decode = llama.Context.decode

    def watch(self: llama.Context) -> int:
        batch = self.batch
        seen.append([(batch._pos[i], batch._seq_id[i][0]) for i in range(batch.n_tokens)])
        return decode(self)

    monkeypatch.setattr(llama.Context, "decode", watch)
    return seen


def sizes(decodes: list[list[tuple[int, int]]]) -> list[int]:
    return [len(each) for each in decodes]


def test_a_prompt_is_read_in_pieces_of_a_batch(model: Model, subject: Subject, decodes: Any) -> None:
    with open_workload(model, Case(subject, 40, 0, tuning=replace(ONE, n_batch=16))) as workload:
        sample = workload.measure()
    assert sizes(decodes) == [16, 16, 8]
    assert [position for each in decodes for position, _ in each] == list(range(40))
    assert sample.n_tokens == 40
    assert sample.first_seconds is not None
    assert sample.per_second == pytest.approx(40 / sample.seconds)


def test_an_answer_is_single_tokens_after_the_depth_which_is_read_once(
    model: Model, subject: Subject, decodes: Any
) -> None:
    with open_workload(model, Case(subject, 0, 3, 20, tuning=ONE)) as workload:
        first, second = workload.measure(), workload.measure()
    assert sizes(decodes) == [20, 1, 1, 1, 1, 1, 1]
    assert [each[0][0] for each in decodes[1:]] == [20, 21, 22] * 2
    assert (first.n_tokens, first.first_seconds, second.n_tokens) == (3, None, 3)


def test_a_prompt_and_its_answer_go_on_from_one_another(model: Model, subject: Subject, decodes: Any) -> None:
    with open_workload(model, Case(subject, 8, 2, 4, tuning=ONE)) as workload:
        workload.warm_up()
        decodes.clear()
        workload.measure()
    assert sizes(decodes) == [4, 8, 1, 1]
    assert [position for each in decodes for position, _ in each] == list(range(14))


def test_answers_to_a_real_prompt_are_sampled_from_it(model: Model, subject: Subject, decodes: Any) -> None:
    prompt = tuple(model.tokenize("the quick brown fox"))
    with open_workload(model, Case(subject, 0, 4, tuning=ONE, prompt=prompt)) as workload:
        workload.measure()
    assert sizes(decodes) == [len(prompt), 1, 1, 1, 1]
    decodes.clear()
    with open_workload(model, Case(subject, len(prompt), 2, tuning=ONE, prompt=prompt)) as workload:
        workload.measure()
    assert sizes(decodes) == [len(prompt), 1, 1]


def test_answers_side_by_side_are_timed_from_when_all_have_begun(model: Model, subject: Subject, decodes: Any) -> None:
    with open_workload(model, Case(subject, 0, 5, tuning=ONE, n_parallel=3)) as workload:
        assert workload.measure().n_tokens == 15
        assert sizes(decodes) == [3] * 6
        assert workload.measure().n_tokens == 15  # what went before is forgotten
    assert all({sequence for _, sequence in each} == {0, 1, 2} for each in decodes)


def test_a_depth_side_by_side_never_ends_an_answer_before_its_time(
    model: Model, subject: Subject, decodes: Any
) -> None:
    with open_workload(model, Case(subject, 0, 6, 100, tuning=ONE, n_parallel=4)) as workload:
        assert workload.measure().n_tokens == 24
    assert sizes(decodes)[-6:] == [4] * 6


def test_prompts_side_by_side_are_all_read_and_answered(model: Model, subject: Subject, decodes: Any) -> None:
    with open_workload(model, Case(subject, 20, 3, tuning=ONE, n_parallel=2)) as workload:
        sample = workload.measure()
    assert sample.n_tokens == 46
    assert sample.first_seconds is not None
    assert 0 < sample.first_seconds < sample.seconds
    assert sum(sizes(decodes)) == 2 * (20 + 3 - 1)  # the last token of an answer is not fed


def test_a_model_with_a_state_is_measured_at_a_depth_as_well(tmp_path: Path) -> None:
    path = write_tiny_mamba(tmp_path / "mamba.gguf")
    with Model([path]) as model, open_workload(model, Case(Subject("m", (path,)), 4, 2, 8, tuning=ONE)) as workload:
        workload.warm_up()
        assert [workload.measure().n_tokens for _ in range(2)] == [6, 6]


def test_a_measurement_that_is_stopped_is_none(model: Model, subject: Subject) -> None:
    with open_workload(model, Case(subject, 8, 0, tuning=ONE)) as workload:
        workload._scheduler.cancel()
        with pytest.raises(EngineError, match="stopped"):
            workload.measure()
    with open_workload(model, Case(subject, 8, 1, tuning=ONE, n_parallel=2)) as workload:
        workload._scheduler.cancel()
        with pytest.raises(EngineError, match="stopped"):
            workload.measure()


def test_cases_are_measured_in_turn_after_a_warm_up_each(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    for kind in ("_Alone", "_SideBySide"):
        from owm.bench import measure

        cls = getattr(measure, kind)
        for name in ("warm_up", "measure"):
            done = getattr(cls, name)

            def watch(self: Any, name: str = name, done: Any = done) -> Any:
                said.append(f"{name} {self.case.test}")
                return done(self)

            monkeypatch.setattr(cls, name, watch)
    cases = [
        Case(subject, 8, 0, tuning=ONE),
        Case(subject, 0, 2, tuning=ONE),
        Case(subject, 0, 2, tuning=ONE, n_parallel=2),
    ]
    events: list[Event] = []
    found = list(measure_cases(cases, repetitions=2, times_loading=False, sink=events.append))
    said = [line for line in said if not line.endswith("pp1")]
    assert said == [
        "warm_up pp8", "measure pp8", "warm_up tg2", "measure tg2", "warm_up tg2 × 2", "measure tg2 × 2",
        "measure pp8", "measure tg2", "measure tg2 × 2",
    ]  # fmt: skip
    assert [len(one.samples) for one in found] == [2, 2, 2]
    assert isinstance(events[0], Started)
    assert events[0].total == 6
    assert [event.done for event in events if isinstance(event, Advanced)][-1] == 6
    assert isinstance(events[-1], Finished)


def test_what_holds_is_said_where_a_case_left_it_to_the_default(subject: Subject) -> None:
    [found] = measure_cases([Case(subject, 4, 0)], repetitions=1, has_warmup=False)
    with Model(subject.files) as model:
        usable = model.cores.usable
    assert found.tuning == Tuning(usable, 2048, 512, None, "f16", "f16", None, -1)
    assert found.loading is not None
    assert found.loading.warm_seconds > 0
    assert found.peak_bytes > 10 << 20
    assert found.gpu_bytes is None


def test_contexts_are_made_anew_where_memory_is_tight(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, decodes: Any
) -> None:
    monkeypatch.setattr(rounds, "_is_tight", lambda: True)
    cases = [Case(subject, 8, 0, tuning=ONE), Case(subject, 0, 2, 16, tuning=ONE)]
    found = list(measure_cases(cases, repetitions=2, has_warmup=False, times_loading=False))
    assert [len(one.samples) for one in found] == [2, 2]
    assert sizes(decodes) == [1, 8, 16, 1, 1, 8, 16, 1, 1]  # a token when it is opened, and the depth twice


def test_models_that_have_no_room_together_are_measured_one_after_the_other(tmp_path: Path) -> None:
    subjects = [Subject(name, (write_tiny_gguf(tmp_path / f"{name}.gguf", seed=i),)) for i, name in enumerate("abc")]
    cases = [Case(subject, n, 0, tuning=ONE) for subject in subjects for n in (1, 2)]
    n_bytes = subjects[0].files[0].stat().st_size
    assert [len(group) for group in groups(cases, room_bytes=10 * n_bytes)] == [6]
    assert [len(group) for group in groups(cases, room_bytes=2 * n_bytes)] == [4, 2]
    assert [len(group) for group in groups(cases, room_bytes=1)] == [2, 2, 2]
    assert list(itertools.chain(*groups(cases, room_bytes=1))) == cases


def test_every_model_of_a_group_is_closed_with_its_contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Model] = []
    init = Model.__init__

    def watch(self: Model, *args: Any, **more: Any) -> None:
        init(self, *args, **more)
        opened.append(self)

    monkeypatch.setattr(Model, "__init__", watch)
    subjects = [Subject(name, (write_tiny_gguf(tmp_path / f"{name}.gguf"),)) for name in "ab"]
    cases = [Case(subject, 4, 0, tuning=ONE) for subject in subjects]
    assert len(list(measure_cases(cases, repetitions=2))) == 2
    assert len(opened) == 4  # each from disk and from memory
    assert all(model.native.pointer is None and not model._schedulers for model in opened)


def test_a_token_costs_the_weights_but_those_that_are_looked_up(path: Path) -> None:
    header = gguf.read_header(path)
    names = {tensor.name: tensor for tensor in header.tensors}
    cost = cost_of([header])
    looked_up = names["token_embd.weight"].n_bytes if "output.weight" in names else 0
    assert cost.read_bytes == sum(tensor.n_bytes for tensor in header.tensors) - looked_up
    matrices = [t for t in header.tensors if len(t.shape) == 2 and t.name not in ("token_embd.weight", "output.weight")]
    assert cost.read_flops == 2 * sum(tensor.n_elements for tensor in matrices)
    assert not cost.has_experts


def test_of_experts_only_those_in_use_are_counted(tmp_path: Path) -> None:
    header = gguf.read_header(write_tiny_moe(tmp_path / "moe.gguf"))
    experts = [tensor for tensor in header.tensors if "_exps" in tensor.name]
    assert experts
    n_used = header.integer("expert_used_count")
    assert n_used
    cost = cost_of([header])
    assert cost.has_experts
    everything = replace(
        header, metadata={**header.metadata, f"{header.architecture}.expert_used_count": experts[0].shape[-1]}
    )
    saved = sum(tensor.n_bytes for tensor in experts) * (1 - n_used / experts[0].shape[-1])
    assert cost_of([everything]).read_bytes - cost.read_bytes == pytest.approx(saved, abs=len(experts))


def test_a_record_says_how_near_it_is_to_what_the_machine_can_do(subject: Subject) -> None:
    cases = [
        Case(subject, 8, 0, tuning=ONE),
        Case(subject, 0, 4, tuning=ONE),
        Case(subject, 0, 4, tuning=ONE, n_parallel=2),
    ]
    measured = list(measure_cases(cases, repetitions=2, has_warmup=False))
    cost = measured[0].opened.cost
    limits = Limits(1e9, {cost.type_name: 1e12})
    prompt, answer, both = (record_of(one, Build("c", "x", "", "CPU", "1"), limits) for one in measured)
    assert prompt.flops == pytest.approx(cost.read_flops * prompt.avg_ts)
    assert prompt.flops_share == pytest.approx(cost.read_flops * prompt.avg_ts / 1e12)
    assert (prompt.gbps, answer.flops) == (None, None)
    assert answer.gbps == pytest.approx(cost.read_bytes * answer.avg_ts / 1e9)
    assert answer.bandwidth_share == pytest.approx(answer.gbps)
    assert both.gbps == pytest.approx(cost.read_bytes * both.avg_ts / 2 / 1e9)
    assert (both.test, both.n_parallel, both.is_llama_bench) == ("tg4 × 2", 2, False)
    assert prompt.avg_ns == pytest.approx(sum(prompt.samples_ns) / 2, abs=1)
    assert len(prompt.samples_ts) == 2


def test_a_file_that_was_forgotten_is_cold_and_one_that_is_mapped_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (4 << 20))
    if not resident.forget_files([path]):  # a file system that keeps everything in memory
        return
    with path.open("rb") as file:
        assert resident._resident_share(file.fileno()) <= 0.05
        file.read()
        assert resident._resident_share(file.fileno()) > 0.9
    assert not resident.forget_files([tmp_path / "none"])


def test_a_peak_is_seen_after_it_is_over(tmp_path: Path) -> None:
    resident.reset_peak()
    before = resident.peak_bytes()
    with mmap.mmap(-1, 64 << 20) as block:  # of the system, to which it goes back
        for i in range(0, len(block), 4096):
            block[i] = 1
    assert resident.peak_bytes() - before > 48 << 20
    resident.reset_peak()
    assert resident.peak_bytes() - before < 32 << 20
