"""Which of the places that a config names rope parameters in wins."""

from typing import Any

import pytest

from owm.convert.hparams import Config

USUAL = {"rope_scaling": {"rope_type": "yarn", "factor": 32.0}}


@pytest.mark.parametrize(
    ("config", "factor"),
    [
        ({}, 32.0),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, 4.0),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 8.0}}, 8.0),
        ({"rope_parameters": {"factor": 4.0}, "rope_scaling": {"factor": 8.0}}, 8.0),
    ],
    ids=["neither", "newer", "older", "both"],
)
def test_a_class_default_yields_to_what_is_stated(config: dict[str, Any], factor: float) -> None:
    assert Config(config, USUAL).rope()["factor"] == factor
