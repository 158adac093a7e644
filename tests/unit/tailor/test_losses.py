from collections.abc import Mapping
from dataclasses import replace

import pytest

from owm.tailor import losses
from owm.tailor.losses import calibrate, nearest
from owm.tailor.sensitivity import Errors

# Relative errors that halve with every bit; K types round activations coarsely.
BY_TYPE = {"Q3_K": 0.03, "Q4_0": 0.01, "Q4_K": 0.006, "Q5_1": 0.002, "Q6_K": 0.0005, "Q8_0": 0.0001}
SLOPES = {"attn_v.weight": 3.0, "ffn_up.weight": 0.5, "token_embd.weight": 6.0}
FINE, COARSE = 0.5, 0.25


def _model(n_layers: int = 3) -> dict[str, Errors]:
    names = [f"blk.{layer}.{kind}" for layer in range(n_layers) for kind in ("attn_v.weight", "ffn_up.weight")]
    made = {
        name: Errors(256, 64, {k: v * (1 + i) for k, v in BY_TYPE.items()}, (1e-4, 1e-3))
        for i, name in enumerate(names)
    }
    return made | {"token_embd.weight": Errors(256, 512, BY_TYPE)}


def _truth(errors: Mapping[str, Errors]) -> losses.Losses:
    slopes = {name: next(slope for kind, slope in SLOPES.items() if kind in name) for name in errors}
    return losses.Losses(errors, slopes, FINE, dict.fromkeys(errors, COARSE))


def test_trials_find_slopes_and_rounding() -> None:
    errors = _model()
    truth = _truth(errors)
    found = calibrate(errors, truth.predict)
    assert found.slopes == pytest.approx(dict(truth.slopes))
    assert found.fine == pytest.approx(FINE)
    assert found.coarse == pytest.approx(dict(truth.coarse))
    for type_name in BY_TYPE:
        types = dict.fromkeys(errors, type_name)
        assert found.predict(types) == pytest.approx(truth.predict(types))


def test_two_trials_a_kind_and_one_of_all() -> None:
    seen: list[Mapping[str, str]] = []

    def measure(types: Mapping[str, str]) -> float:
        seen.append(types)
        return _truth(_model()).predict(types)

    calibrate(_model(), measure)
    assert len(seen) == 7
    assert set(seen[0].values()) == {"Q8_0"}
    assert [sum(type_name == "Q4_0" for type_name in types.values()) for types in seen[1:4]] == [3, 3, 1]
    assert [sum(type_name == "Q6_K" for type_name in types.values()) for types in seen[4:]] == [3, 3, 1]


def test_rows_that_no_coarse_type_fits_have_one_trial_a_kind() -> None:
    fine = {name: replace(error, by_type={"Q4_0": 0.01, "Q8_0": 0.0001}) for name, error in _model().items()}
    seen: list[Mapping[str, str]] = []

    def measure(types: Mapping[str, str]) -> float:
        seen.append(types)
        return _truth(fine).predict(types)

    assert calibrate(fine, measure).coarse == {}
    assert len(seen) == 4


def test_many_kinds_share_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "MAX_GROUPS", 2)
    n_calls = 0

    def measure(types: Mapping[str, str]) -> float:
        nonlocal n_calls
        n_calls += 1
        return _truth(_model()).predict(types)

    found = calibrate(_model(), measure)
    assert n_calls == 5
    assert found.slopes["blk.0.attn_v.weight"] == found.slopes["blk.0.ffn_up.weight"]


def test_a_loss_below_the_noise_is_never_free() -> None:
    def measure(types: Mapping[str, str]) -> float:
        is_trial = types["blk.0.ffn_up.weight"] == "Q4_0"
        return _truth(_model()).predict(types) if not is_trial else 0.0

    assert calibrate(_model(), measure).slopes["blk.0.ffn_up.weight"] > 0


def test_rows_that_the_type_does_not_fit() -> None:
    errors = Errors(96, 1, {"Q4_0": 0.1, "Q5_1": 0.01, "Q8_0": 0.001})
    assert nearest(errors, "Q6_K") == "Q8_0"
    assert nearest(errors, "Q4_0") == "Q4_0"
    assert nearest(Errors(96, 1, {"Q4_0": 0.1}), "Q8_0") == "Q4_0"
