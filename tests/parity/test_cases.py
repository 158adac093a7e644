"""The proofs of every case: the same file as the reference's, the same logits as transformers', and no blind spot."""

from contextlib import suppress

from parity.comparing import MIN_COSINE, file_differences
from parity.converting import ReferenceConverter
from parity.proof import Proof
from parity.worker import RefusedError

TYPES = ("f32", "f16", "bf16")


def test_the_file_is_the_references(proof: Proof, reference: ReferenceConverter) -> None:
    if proof.case.reference is not True:
        proof.row.files = proof.case.reference
        theirs = proof.folder / "theirs.gguf"
        with suppress(RefusedError):
            reference.convert(proof.case, proof.checkpoint.folder, theirs, "f32")
            assert file_differences(proof.gguf, theirs), f"it makes the same file; listed: {proof.case.reference}"
        return
    found = []
    for outtype in TYPES:
        theirs = proof.folder / f"theirs-{outtype}.gguf"
        reference.convert(proof.case, proof.checkpoint.folder, theirs, outtype)
        allowed = () if proof.converter is reference else proof.case.allowed
        differences = file_differences(proof.converted(outtype), theirs, allowed)
        found += [f"{outtype}: {each}" for each in differences]
    proof.row.files = f"{len(found)} differences" if found else "equal"
    proof.row.problems += found
    assert not found, "\n".join(found)


def test_the_logits_are_those_of_transformers(proof: Proof) -> None:
    if proof.case.logits is not True:
        proof.row.logits = proof.case.logits
        assert proof.notices(proof.gguf), f"they agree; listed: {proof.case.logits}"
        return
    found = proof.agreement_of(proof.gguf)
    proof.row.min_cosine, proof.row.n_same_top = found.min_cosine, found.n_same_top
    assert found.min_cosine >= MIN_COSINE
    assert found.holds, found


def test_a_changed_hparam_is_noticed(proof: Proof) -> None:
    if proof.case.logits is not True:
        return
    assert not proof.notices(proof.gguf), "the file is wrong already"
    wrong, n = proof.unnoticed_hparams()
    proof.row.hparams = f"{n - len(wrong)}/{n}"
    proof.row.problems += wrong
    assert not wrong, "\n".join(wrong)


def test_a_missing_rule_is_noticed(proof: Proof, noticed_rules: dict[str, dict[str, bool]]) -> None:
    """Not every rule of an entry matters to every case: `test_entries.py` asks whether each mattered to one."""
    entry = proof.converter.entry_of(proof.case)
    if entry is None or proof.case.logits is not True:
        return
    assert not proof.notices(proof.gguf), "the file is wrong already"
    noticed = noticed_rules.setdefault(entry.hf[0], {})
    proof.try_rules(noticed)
    proof.row.rules = f"{sum(noticed.values())}/{len(noticed)}"
