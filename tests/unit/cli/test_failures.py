"""Every error has an exit code, and is said in one line."""

import inspect

import pytest

from owm import errors
from owm.cli.failures import EXIT_CODES, ExitCode, exit_code, report
from owm.errors import OwmError

ALL_ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, OwmError)]

EXPECTED = {
    "UsageError": 2,
    "PromptTooLong": 2,
    "NotFound": 3,
    "ModelNotFound": 3,
    "QuantNotFound": 3,
    "NetworkError": 4,
    "SourceUnreachable": 4,
    "TransferFailed": 4,
    "AccessDenied": 4,
    "Unsupported": 5,
    "NoUsableFile": 5,
    "NotEnough": 6,
    "NotEnoughDisk": 6,
    "NotEnoughMemory": 6,
    "Damaged": 7,
    "MalformedFile": 7,
    "ChecksumMismatch": 7,
    "TemplateError": 7,
    "TemplateRefusal": 7,
    "StoreError": 1,
    "EngineError": 1,
    "OwmError": 1,
}


def test_the_exit_code_of_every_error_is_pinned() -> None:
    codes = {
        kind.__name__: next(code for base, code in EXIT_CODES if issubclass(kind, base)).value for kind in ALL_ERRORS
    }
    assert codes == EXPECTED


def test_the_tree_in_the_docstring_names_every_error() -> None:
    for kind in ALL_ERRORS:
        assert kind.__name__ in (errors.__doc__ or ""), kind.__name__


def test_an_error_is_one_line_and_its_hint_another(capsys: pytest.CaptureFixture[str]) -> None:
    code = report(OwmError("no such \x1b[31mthing\nreally", hint="try `owm list`"))
    assert code is ExitCode.FAILURE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: no such \\x1b[31mthing\\nreally\nhint: try `owm list`\n"


def test_the_most_specific_row_wins() -> None:
    assert exit_code(errors.QuantNotFound("x", quant="q", available=())) is ExitCode.NOT_FOUND
