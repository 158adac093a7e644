"""`owm config`: settings set, listed and forgotten at the command line, for models by any of their names."""

import sys
from pathlib import Path

import pytest

from owm.settings import config
from owm.store import refs
from owm.store.local import Store
from support.run import Output, run, run_here
from support.stored import put_model

Capture = pytest.CaptureFixture[str]
SUBCOMMANDS = [("config", "set"), ("config", "get"), ("config", "unset"), ("config", "list"), ("config", "path")]
SUBCOMMANDS += [("prompts", name) for name in ("list", "show", "save", "rm", "path")]
SUBCOMMANDS += [("logs", name) for name in ("on", "off", "path", "clear")]


@pytest.mark.parametrize("words", SUBCOMMANDS, ids=" ".join)
def test_every_subcommand_takes_json_quiet_and_verbose(words: tuple[str, str], capsys: Capture) -> None:
    shown = run_here(capsys, *words, "--help")
    assert shown.exit_code == 0
    for flag in ("--json", "--quiet", "--verbose"):
        assert flag in shown


def test_no_subcommand_is_missing_above() -> None:
    from importlib import import_module

    found = [
        (name, str(command.name))
        for name in ("config", "prompts", "logs")
        for command in import_module(f"owm.cli.{name}").subcommands.registered_commands
    ]
    assert sorted(found) == sorted(SUBCOMMANDS)


@pytest.fixture
def stored(store: Store) -> Store:
    put_model(store, "acme/model-GGUF", "Q4_K_M")
    put_model(store, "acme/model-GGUF", "Q8_0")
    store.aliases.set("mine", refs.parse("acme/model-GGUF:Q8_0"))
    return store


def test_what_is_set_is_listed(stored: Store, capsys: Capture) -> None:
    first = run_here(capsys, "config", "set", "temp=0.3", "top-k=20", "think=hide")
    assert (first, first.exit_code) == ("", 0)
    assert first.stderr.splitlines() == [
        "for all models: temp = 0.3",
        "for all models: top_k = 20",
        "for all models: think = hide",
    ]
    assert run_here(capsys, "config", "set", "mine", "system=a = b").stderr == (
        "for acme/model-GGUF:Q8_0: system = a = b\n"
    )
    assert run_here(capsys, "config", "set", "acme/mod", "TEMP=1", "-q").stderr == ""
    shown = run_here(capsys, "config")
    assert [line.split() for line in shown.splitlines()] == [
        ["MODEL", "SETTING", "VALUE"],
        ["(all", "models)", "temp", "0.3"],
        ["(all", "models)", "top_k", "20"],
        ["(all", "models)", "think", "hide"],
        ["acme/model-GGUF:Q8_0", "system", "a", "=", "b"],
        ["acme/model-GGUF", "temp", "1.0"],
    ]
    assert run_here(capsys, "config", "list") == shown


def test_the_json_has_the_keys_that_programs_rely_on(stored: Store, capsys: Capture) -> None:
    assert run_here(capsys, "config", "--json").json == []
    as_set = run_here(capsys, "config", "set", "mine", "temp=0.3", "--json")
    row = {"model": "acme/model-GGUF:Q8_0", "name": "temp", "value": 0.3}
    assert as_set.json == [row]
    run_here(capsys, "config", "set", "seed=3")
    everywhere = {"model": None, "name": "seed", "value": 3}
    for words in (["config", "--json"], ["config", "list", "--json"], ["config", "--json", "list"]):
        assert run_here(capsys, *words).json == [everywhere, row]
    assert run_here(capsys, "config", "get", "mine", "temp", "--json").json == {
        **row,
        "origin": "config.toml [acme/model-GGUF:Q8_0]",
    }
    assert run_here(capsys, "config", "get", "mine", "seed", "--json").json["origin"] == "config.toml"
    assert run_here(capsys, "config", "unset", "seed", "--json").json == [{"model": None, "name": "seed"}]
    assert run_here(capsys, "config", "path", "--json").json == {"path": str(config.default_path()), "exists": True}


def test_a_value_is_printed_as_it_is(stored: Store, capsys: Capture) -> None:
    run_here(capsys, "config", "set", "acme/model-GGUF", "system=Be brief.\nBe \x1b[1mbold")
    assert run_here(capsys, "config", "get", "mine", "system") == "Be brief.\nBe \x1b[1mbold\n"
    assert "\x1b" not in run_here(capsys, "config")
    missing = run_here(capsys, "config", "get", "mine", "seed")
    assert (missing, missing.exit_code) == ("", 3)
    assert "error: seed is not set for acme/model-GGUF:Q8_0" in missing.stderr


def test_unsetting(stored: Store, capsys: Capture) -> None:
    run_here(capsys, "config", "set", "mine", "temp=1", "seed=2")
    done = run_here(capsys, "config", "unset", "mine", "temp", "top-k")
    assert done.exit_code == 3
    assert done.stderr.splitlines()[:2] == [
        "temp is not set any more for acme/model-GGUF:Q8_0",
        "error: not set for acme/model-GGUF:Q8_0: top_k",
    ]
    assert run_here(capsys, "config", "unset", "mine", "seed").exit_code == 0
    assert config.load(config.default_path()) == config.Config()


def test_a_model_that_is_gone_can_be_unset_by_the_name_in_the_file(
    store: Store, tmp_path: Path, capsys: Capture
) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(b"GGUF")
    run_here(capsys, "config", "set", str(model), "temp=1")
    model.unlink()
    assert run_here(capsys, "config", "unset", str(model), "temp").exit_code == 0
    assert config.load(config.default_path()) == config.Config()


def test_a_model_that_is_not_stored_can_be_configured_and_that_is_said(store: Store, capsys: Capture) -> None:
    done = run_here(capsys, "config", "set", "some/where:Q4_K_M", "temp=1")
    assert done.stderr.splitlines()[1:] == ["some/where:Q4_K_M is not stored yet"]
    assert list(config.load(config.default_path()).models) == ["some/where:Q4_K_M"]


@pytest.mark.parametrize(
    ("words", "code", "message", "hint"),
    [
        (["set", "tmp=1"], 2, "no such setting: tmp", "did you mean `temp`?"),
        (["set", "temp=200"], 2, "temp must be between 0 and 100: 200.0", None),
        (["set", "temp=hot"], 2, "temp is not a number: hot", None),
        (["set", "top_k=1.5"], 2, "top_k is not a number: 1.5", None),
        (["set", "temp=1", "seed"], 2, "not a setting with a value: seed", "`KEY=VALUE`, for example `temp=0.3`"),
        (["set", "think=shwo"], 2, "think must be one of show, hide, only, off: shwo", "did you mean `show`?"),
        (["set", "smollm"], 2, "not a setting with a value: smollm", None),
        (["set", "nosuch", "temp=1"], 3, "no model named nosuch", None),
        (["set", "a b c", "temp=1"], 2, "not a model name: 'a b c'", None),
        (["get", "tmp"], 2, "no such setting: tmp", "did you mean `temp`?"),
        (["get", "a/b", "temp", "seed"], 2, "name one setting", None),
        (["unset", "temp"], 3, "not set for all models: temp", "`owm config` lists what is"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    words: list[str], code: int, message: str, hint: str | None, store: Store, capsys: Capture
) -> None:
    done = run_here(capsys, "config", *words)
    assert (done, done.exit_code) == ("", code)
    assert f"error: {message}\n" in done.stderr
    assert hint is None or f"hint: {hint}\n" in done.stderr
    assert not config.default_path().exists()


def test_a_broken_file_is_said_and_what_is_wrong_in_it_can_be_unset(store: Store, capsys: Capture) -> None:
    path = config.default_path()
    path.parent.mkdir(parents=True)
    path.write_text("seed = 1\ntmp = 2\n")
    done = run_here(capsys, "config")
    assert done.exit_code == 2
    assert done.stderr == f"error: no such setting in {path}, line 2: tmp\nhint: did you mean `temp`?\n"
    assert run_here(capsys, "config", "unset", "tmp").exit_code == 0
    assert run_here(capsys, "config", "get", "seed") == "1\n"
    path.write_text("seed = = 1\n")
    for words in (["list"], ["set", "temp=1"], ["unset", "seed"], ["get", "seed"]):
        done = run_here(capsys, "config", *words)
        assert done.exit_code == 2
        assert done.stderr.startswith(f"error: {path} is not TOML: invalid value (at line 1, ")


def test_nothing_is_set_at_first(capsys: Capture) -> None:
    done = run_here(capsys, "config")
    assert (done, done.exit_code) == ("", 0)
    assert done.stderr.startswith("nothing is set; `owm config set temp=0.3` is for all models")


def test_without_a_home_the_platform_says_where(tmp_path: Path) -> None:
    def place(**env: str) -> Output:
        changes: dict[str, str | None] = {"OWM_HOME": None, "HOME": str(tmp_path), "XDG_CONFIG_HOME": None, **env}
        return run(["-m", "owm", "config", "path"], changes)

    found = Path(place().strip())
    assert found.name == "config.toml"
    assert found.is_relative_to(tmp_path)
    if sys.platform == "linux":
        assert found == tmp_path / ".config" / "owm" / "config.toml"
        assert place(XDG_CONFIG_HOME="/etc/mine").strip() == "/etc/mine/owm/config.toml"
    assert place(OWM_HOME="/srv/owm").strip() == "/srv/owm/config.toml"


def test_a_setting_that_another_model_has_does_not_hold(stored: Store, capsys: Capture) -> None:
    run_here(capsys, "config", "set", "acme/model-GGUF:Q4_K_M", "temp=1")
    assert run_here(capsys, "config", "get", "mine", "temp").exit_code == 3


def test_a_section_written_by_hand_under_a_short_name_or_an_alias_is_the_one_that_is_changed(
    stored: Store, capsys: Capture
) -> None:
    path = config.default_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[models.smollm2]\ntemp = 1\n[models.mine]\ntemp = 2\n")
    assert run_here(capsys, "config", "get", "smollm2:135m", "temp") == "1.0\n"
    assert run_here(capsys, "config", "get", "acme/model-GGUF:Q8_0", "temp") == "2.0\n"
    assert run_here(capsys, "config", "get", "acme/model-GGUF:Q4_K_M", "temp").exit_code == 3
    run_here(capsys, "config", "set", "mine", "temp=3")
    run_here(capsys, "config", "set", "smollm2", "temp=4")
    assert path.read_text() == "[models.smollm2]\ntemp = 4.0\n[models.mine]\ntemp = 3.0\n"
