"""Tables and JSON go to stdout; in a pipe cells are whole and columns line up."""

import json

import pytest

from owm.cli.output import Output

ROWS = [{"name": "a-long-name:Q4_1", "size": "9 B"}, {"name": "b", "size": "93.8 MiB"}]
COLUMNS = {"name": "NAME", "size": "SIZE"}


def test_a_table_in_a_pipe_is_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(ROWS, COLUMNS, right=("size",))
    assert capsys.readouterr().out.splitlines() == [
        "NAME                  SIZE",
        "a-long-name:Q4_1       9 B",
        "b                 93.8 MiB",
    ]


def test_json_has_the_rows_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).table(ROWS, COLUMNS)
    assert json.loads(capsys.readouterr().out) == ROWS


def test_quiet_hides_notes_but_not_data(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(quiet=True, verbose=True)
    out.note("said")
    out.detail("more")
    out.data("x", lines=["kept"])
    assert capsys.readouterr() == ("kept\n", "")


def test_details_need_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    Output().detail("hidden")
    Output(verbose=True).detail("shown")
    assert capsys.readouterr().err == "shown\n"


def test_a_cell_with_escapes_and_newlines_stays_in_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table([{"name": "x\x1b[2J\ny", "size": None}], COLUMNS)
    assert capsys.readouterr().out.splitlines()[1] == "x\\x1b[2J\\ny"
