"""After the cases: what they prove of the table of architectures together."""

from owm.convert.architectures.registry import architectures
from parity.allowed import UNPROVEN
from parity.cases import CASES
from parity.proof import Row


def test_every_rule_matters_to_a_case(noticed_rules: dict[str, dict[str, bool]], rows: dict[str, Row]) -> None:
    """Entries are judged only if all their cases have run."""
    wrong = []
    for hf, noticed in noticed_rules.items():
        cases = [case for case in CASES if case.hf in architectures()[hf].hf]
        if any(case.id not in rows or (case.logits is True and rows[case.id].rules is None) for case in cases):
            continue
        inert = {rule for case in cases for rule in case.inert_rules}
        unnoticed = {rule for rule, is_noticed in noticed.items() if not is_noticed}
        wrong += [f"{hf}: nothing changes without: {rule}" for rule in sorted(unnoticed - inert)]
        wrong += [f"{hf}: listed as inert, yet noticed: {rule}" for rule in sorted(inert & noticed.keys() - unnoticed)]
        wrong += [f"{hf}: listed as inert, but no rule: {rule}" for rule in sorted(inert - noticed.keys())]
    assert not wrong, "\n".join(wrong)


def test_every_class_is_proven() -> None:
    proven = {case.hf for case in CASES if case.logits is True}
    unproven = sorted(architectures().keys() - proven - UNPROVEN.keys())
    assert not unproven, f"no case with logits: {', '.join(unproven)}"
    assert not UNPROVEN.keys() & proven, "listed as unproven, and proven"
