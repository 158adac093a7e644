"""Regular expressions of a stranger's manifest: those that name tensors are taken, those that never end are not."""

import re
import time

import pytest

from owm.errors import Damaged
from owm.library import recipes
from owm.library.recipes import QUANTIZE, Options
from owm.quantize.recipe import Overrides


def check(*patterns: str) -> None:
    options = Options(Overrides(tuple((pattern, "Q8_0") for pattern in patterns)))
    made_from = {"type": "Q8_0", **recipes.about(QUANTIZE, options)}
    recipes.check_patterns(recipes.read(made_from, "tiny"), "tiny")


@pytest.mark.parametrize(
    "pattern",
    [
        "attn_v",
        r"^blk\.\d+\.ffn_(up|down|gate)_exps\.weight$",
        r"blk\.([0-9]|[1-4][0-9])\.ffn_.*_exps\..*",
        r"(^|\.)token_embd",
        ".*=x",
    ],
)
def test_plain_ones_are_taken(pattern: str) -> None:
    check(pattern.partition("=")[0])


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+X",
        "(a|a)*X",
        "(a?){9}X",
        ".{1,9}X",
        ".*.*.*.*X",
        "a?" * 30 + "X",
        "(.|.)" * 30 + "X",
        "(" * 2_000 + ")" * 2_000,
        "(?=a)a",
        r"(a)\1",
        "(a",
        "a)",
        "[a",
        "a**",
        "é",
    ],
)
def test_others_are_refused(pattern: str) -> None:
    with pytest.raises(Damaged, match="not plain"):
        check(pattern)


def test_too_many_are_refused() -> None:
    check(*["attn_v"] * recipes.MAX_PATTERNS)
    for patterns in (["attn_v"] * (recipes.MAX_PATTERNS + 1), [".*.*.*"] * 17):
        with pytest.raises(Damaged, match="too many"):
            check(*patterns)


def test_the_worst_that_is_taken_ends() -> None:
    check("[a-z]*[a-z]*[a-z]*X")
    before = time.process_time()
    assert re.search("[a-z]*[a-z]*[a-z]*X", "a" * 64) is None
    assert time.process_time() - before < 30
