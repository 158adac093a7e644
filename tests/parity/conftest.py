"""The parts that all proofs share: tokenizers, the two workers, and the table at the end."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}

import torch

from parity.allowed import UNPROVEN
from parity.cases import CASES
from parity.converting import OwmConverter, ReferenceConverter
from parity.proof import Proof, Row
from parity.vocabularies import Shelf
from parity.worker import Worker

torch.set_num_threads(2)
ROWS = pytest.StashKey[dict[str, Row]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what scripts/proof_convert passes on."""
    group = parser.getgroup("parity")
    group.addoption("--family", action="append", help="only cases of this family; may be repeated")
    group.addoption("--part", metavar="K/N", default="1/1", help="only every N-th family, from the K-th on")
    group.addoption("--json", type=Path, metavar="FILE", help="write the table to FILE too")
    group.addoption("--subject", choices=["owm", "reference"], default="owm", help="whose files are on trial")


def pytest_configure(config: pytest.Config) -> None:
    """Begin the table; what torch and transformers warn about is theirs."""
    if "OWM_REFERENCE_SOURCE" not in os.environ:
        raise pytest.UsageError("the proofs need an environment of their own: run ./scripts/proof_convert")
    config.stash[ROWS] = {}
    config.addinivalue_line("filterwarnings", "ignore")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test for every case, all tests of a case in a row."""
    if "proof" in metafunc.fixturenames:
        families = metafunc.config.getoption("family")
        cases = [case for case in CASES if not families or case.family in families]
        part, n_parts = map(int, metafunc.config.getoption("part").split("/"))
        kept = list(dict.fromkeys(case.family for case in cases))[part - 1 :: n_parts]
        cases = [case for case in cases if case.family in kept]
        if metafunc.config.getoption("subject") == "reference":
            cases = [case for case in cases if case.reference is True]
        metafunc.parametrize("proof", cases, ids=[case.id for case in cases], indirect=True, scope="session")


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """The tokenizers."""
    return Shelf(tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture(scope="session")
def llama() -> Iterator[Worker]:
    """The process that runs llama.cpp."""
    worker = Worker("llama_worker")
    yield worker
    worker.close()


@pytest.fixture(scope="session")
def reference() -> Iterator[ReferenceConverter]:
    """The process that runs the reference converter."""
    converter = ReferenceConverter(Path(os.environ["OWM_REFERENCE_SOURCE"]))
    yield converter
    converter.close()


@pytest.fixture(scope="session")
def rows(pytestconfig: pytest.Config) -> dict[str, Row]:
    """The table so far, by the id of the case."""
    return pytestconfig.stash[ROWS]


@pytest.fixture(scope="session")
def noticed_rules() -> dict[str, dict[str, bool]]:
    """First class of an entry -> tensor rule -> whether a case so far went wrong without it."""
    return {}


@pytest.fixture(scope="session")
def proof(
    request: pytest.FixtureRequest,
    rows: dict[str, Row],
    shelf: Shelf,
    llama: Worker,
    reference: ReferenceConverter,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Proof]:
    """The proof of one case; its files are gone after its last test."""
    case = request.param
    row = rows.setdefault(case.id, Row(case.id, case.hf, case.made_by))
    converter = reference if request.config.getoption("subject") == "reference" else OwmConverter()
    proof = Proof(case, converter, llama, shelf, tmp_path_factory.mktemp(case.id), row)
    yield proof
    proof.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table, and write it if asked."""
    rows = [*config.stash[ROWS].values(), *(Row("-", hf, logits=why) for hf, why in UNPROVEN.items())]
    table = [("case", "class", "bytes and metadata", "min cosine", "top-1", "hparams", "rules")]
    table += [
        (
            row.case,
            row.hf,
            row.files or "-",
            row.logits or ("-" if row.min_cosine is None else f"{row.min_cosine:.6f}"),
            "-" if row.n_same_top is None else str(row.n_same_top),
            row.hparams or "-",
            row.rules or "-",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    terminalreporter.section("parity")
    for line in table:
        terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    if path := config.getoption("json"):
        path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
