"""Which quant is taken where none is named, and why."""

from dataclasses import replace
from functools import partial

from owm.fit import fit
from owm.fit.choice import choose
from owm.fit.fit import Fit, Room
from owm.fit.memory import Buffers, Need

MIB = 1 << 20
GIB = 1 << 30


def row(label: str, gib: float, verdict: fit.Verdict | None = "fits", **more: object) -> Fit:
    return replace(Fit(label, int(gib * GIB), None, None, verdict, 8192), **more)  # type: ignore[arg-type]


def test_the_usual_choice_is_taken_where_it_fits_and_nothing_is_known_of_quality() -> None:
    chosen, reason = choose([row("Q2_K", 2), row("Q4_K_M", 4), row("Q8_0", 8)])
    assert (chosen.label, reason) == (
        "Q4_K_M",
        "Q4_K_M is the usual choice, and it fits with a context of 8,192 tokens",
    )


def test_the_largest_below_the_usual_choice_is_taken_where_that_does_not_fit() -> None:
    chosen, reason = choose([row("Q2_K", 2), row("Q3_K_M", 3), row("Q4_K_M", 4, "no"), row("Q8_0", 8, "no")])
    assert chosen.label == "Q3_K_M"
    assert reason == "Q3_K_M is the largest below Q4_K_M (4.00 GiB) that fits with a context of 8,192 tokens"


def test_the_best_quality_that_fits_is_taken_where_quality_is_known() -> None:
    fits = [row("Q4_K_M", 4, quality=0.03), row("Q6_K", 6, quality=0.004), row("Q8_0", 8, "no", quality=0.001)]
    chosen, reason = choose(fits)
    assert chosen.label == "Q6_K"
    assert reason.endswith("its mean divergence from the original is 0.004")


def test_a_small_one_with_a_certificate_does_not_beat_a_larger_one_without() -> None:
    assert choose([row("Q2_K", 2, quality=0.3), row("Q4_K_M", 4), row("Q8_0", 8)])[0].label == "Q4_K_M"


def test_one_with_a_certificate_that_is_larger_than_the_usual_choice_is_taken() -> None:
    assert choose([row("Q4_K_M", 4), row("Q6_K", 6, quality=0.004)])[0].label == "Q6_K"


def test_a_stored_one_is_taken_before_any_other() -> None:
    chosen, reason = choose([row("Q2_K", 2, is_stored=True), row("Q4_K_M", 4)])
    assert (chosen.label, reason) == ("Q2_K", "Q2_K is stored already")


def test_one_that_fits_with_a_smaller_context_is_taken_where_none_fits_whole() -> None:
    fits = [row("Q2_K", 2, "partly", n_ctx_fitting=4096), row("Q4_K_M", 4, "no")]
    chosen, reason = choose(fits)
    assert (chosen.label, reason) == (
        "Q2_K",
        "none fits whole, and Q2_K fits with a context of 4,096 tokens",
    )


def test_a_short_context_is_not_taken_for_a_better_quant() -> None:
    fits = [row("Q2_K", 2, "partly", n_ctx_fitting=4096), row("Q4_K_M", 4, "partly", n_ctx_fitting=512)]
    assert choose(fits)[0].label == "Q2_K"
    shorter = [row("Q2_K", 2, "partly", n_ctx_fitting=1024), row("Q4_K_M", 4, "partly", n_ctx_fitting=512)]
    assert choose(shorter)[0].label == "Q2_K"


def test_what_may_fit_is_taken_before_what_does_not() -> None:
    chosen, reason = choose([row("Q3_K_M", 3, None), row("Q4_K_M", 4, "no"), row("Q8_0", 8, "no")])
    assert chosen.label == "Q3_K_M"
    assert reason.endswith("its memory is not known")


def test_the_smallest_is_taken_where_none_fits_at_all() -> None:
    chosen, reason = choose([row("Q2_K", 20, "no"), row("Q4_K_M", 40, "no")])
    assert (chosen.label, reason) == ("Q2_K", "none fits this machine, Q2_K is the smallest")


def test_the_usual_choice_is_taken_where_no_memory_is_known() -> None:
    assert choose([row("Q2_K", 2, None), row("Q4_K_M", 4, None)])[0].label == "Q4_K_M"


def test_the_only_one_says_whether_it_fits() -> None:
    assert choose([row("Q4_1", 1)])[1] == "Q4_1 is the only one, and it fits with a context of 8,192 tokens"
    assert choose([row("Q4_1", 99, "no")])[1] == "Q4_1 is the only one, and it does not fit this machine"


def need(n_ctx: int, *, kv_per_token: int = 1 << 16, weights: int = GIB) -> Need:
    cpu = Buffers(weights_bytes=weights, kv_bytes=n_ctx * kv_per_token, compute_bytes=100 * MIB)
    return Need(n_ctx, 1, cpu, Buffers(), process_bytes=100 * MIB, untouched_bytes=0)


def test_a_model_that_has_room_fits() -> None:
    assert fit.judge(need(8192), Room(4 * GIB), smaller=need) == ("fits", None)


def test_a_model_that_has_room_with_a_smaller_context_says_which() -> None:
    room = Room(int(1.6 * GIB))
    verdict, n_ctx = fit.judge(need(8192), room, smaller=need)
    assert verdict == "partly"
    assert n_ctx == 3072
    assert fit.has_room(need(3072), room)
    assert not fit.has_room(need(4096), room)


def test_a_model_larger_than_memory_does_not_fit() -> None:
    assert fit.judge(need(8192, weights=8 * GIB), Room(4 * GIB), smaller=partial(need, weights=8 * GIB)) == ("no", None)


def test_layers_that_stay_in_main_memory_beside_a_gpu_make_it_fit_partly() -> None:
    half = need(8192)
    both = replace(half, gpu=Buffers(weights_bytes=GIB), n_gpu_layers=10)
    assert fit.judge(both, Room(8 * GIB, 4 * GIB), smaller=need)[0] == "partly"
    whole = replace(both, cpu=replace(both.cpu, kv_bytes=0))
    assert fit.judge(whole, Room(8 * GIB, 4 * GIB), smaller=need)[0] == "fits"
