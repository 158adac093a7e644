"""The config file: what it says holds, what it cannot say is refused with its line, and changes lose nothing."""

import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from owm.errors import StoreError, UsageError
from owm.settings import config
from owm.settings.config import Config, change, load
from owm.settings.keys import KEYS
from owm.settings.layers import Setting, resolve

WRITTEN = """\
# my settings
temp = 0.5      # not too warm
top-k = 20

[models."Acme/Model-GGUF"]
# for work
system = \"\"\"
Be brief.
Be kind.\"\"\"

[models."smollm2:135m:Q4_1"]
temp = 1
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_no_file_says_nothing(path: Path) -> None:
    assert load(path) == Config()
    path.write_text("\n")
    assert load(path) == Config()


def test_what_is_written_is_read_by_kind(path: Path) -> None:
    path.write_text(WRITTEN)
    assert load(path) == Config(
        {"temp": 0.5, "top_k": 20},
        {"Acme/Model-GGUF": {"system": "Be brief.\nBe kind."}, "smollm2:135m:Q4_1": {"temp": 1.0}},
    )
    assert type(load(path).models["smollm2:135m:Q4_1"]["temp"]) is float


def test_each_name_of_a_model_adds_a_layer(path: Path) -> None:
    path.write_text(WRITTEN)
    made = load(path)
    assert made.layers([]) == [{"temp": Setting(0.5, "config.toml"), "top_k": Setting(20, "config.toml")}]
    assert resolve(made.layers(["smollm2:135m", "smollm2:135m:q4_1"])) == {
        "temp": Setting(1.0, "config.toml [smollm2:135m:Q4_1]"),
        "top_k": Setting(20, "config.toml"),
    }
    assert resolve(made.layers(["acme/model-gguf"]))["system"].origin == "config.toml [Acme/Model-GGUF]"
    assert resolve(made.layers(["other"])) == made.layers([])[0]


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("Acme/Model", "acme/model", True),
        ("smollm2:135m:Q4_1", "smollm2:135m:q4_1", True),
        ("/data/M.gguf", "/data/m.gguf", False),
        ("/data/m.gguf", "/data/m.gguf", True),
        ("https://h/M.gguf", "https://h/m.gguf", False),
    ],
)
def test_names_of_models_are_the_same_in_any_case_but_paths_are_not(one: str, other: str, is_same: bool) -> None:
    assert (config.same_name(one, [other]) is not None) is is_same


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temp = 0.5\ntop_k = = 3\n", r"{path} is not TOML: invalid value \(at line 2, column 9\)"),
        ("temp = 0.5\n[models", r"{path} is not TOML: .*\(at line 2"),
        ('temp = 0.5\n\nsystem = """never\nclosed\n', r"{path} is not TOML: .*\(at line 5"),
        ("temp = 0.5\ntmp = 3\n", "no such setting in {path}, line 2: tmp"),
        ("[models.x]\ntemp = 3\n\n[models.y]\ntop_k = 1\nnone = 3\n", "no such setting in {path}, line 6: none"),
        ("[run]\ntemp = 3\n", "no such setting in {path}, line 1: run"),
        ("\n\ntemp = 200\n", "temp in {path}, line 3 must be between 0 and 100: 200"),
        ("temp = '1'\n", "temp in {path}, line 1 must be a number: '1'"),
        ("top_k = 1.5\n", "top_k in {path}, line 1 must be a whole number: 1.5"),
        ("temp = nan\n", "temp in {path}, line 1 must be between 0 and 100: nan"),
        ("system = 1979-05-27\n", "system in {path}, line 1 must be a text: .*"),
        ("[models.x]\nthink = 'maybe'\n", "think in {path}, line 2 must be one of show, hide, only, off: maybe"),
        ("top_k = 1\ntop-k = 1\n", "top_k is there twice: {path}, line 2"),
        ("models = 3\n", "models in {path}, line 1 must be tables, one a model: 3"),
        ("[models]\nx = 3\n", "x in {path}, line 2 must be a table of settings: 3"),
        ("[models.x]\n[models.X]\n", "{path}, line 2 names a model again: X"),
        ("a = " + "[" * 5000, "{path} is not TOML: .*"),
        ("top_k = " + "9" * 5000, "{path} is not TOML: .*"),
    ],
)
def test_what_cannot_be_is_one_error_with_its_line(text: str, message: str, path: Path) -> None:
    path.write_text(text)
    with pytest.raises(UsageError, match=f"^{message.replace('{path}', str(path))}"):
        load(path)


def test_a_file_that_is_no_text_names_the_line(path: Path) -> None:
    path.write_bytes(b"temp = 0.5\nsystem = 'f\xfcr'\n")
    with pytest.raises(UsageError, match=r"is not UTF-8 text \(line 2\)$"):
        load(path)
    path.write_bytes(b"\xef\xbb\xbftemp = 0.5\n")  # as some editors write it
    assert load(path).everywhere == {"temp": 0.5}


def test_a_file_that_is_a_folder_is_an_error_of_ours(path: Path) -> None:
    path.mkdir()
    for act in (lambda: load(path), lambda: change(path, None, {"temp": 1.0})):
        with pytest.raises(StoreError, match=f"^cannot read {path}: "):
            act()


# -- changes -----------------------------------------------------------------------------------------------------------


def test_a_change_keeps_comments_order_and_spelling(path: Path) -> None:
    path.write_text(WRITTEN)
    change(path, None, {"temp": 0.7, "top_k": 30, "seed": 1})
    change(path, "ACME/model-gguf", {"temp": 0.1})
    assert path.read_text() == WRITTEN.replace("temp = 0.5 ", "temp = 0.7 ").replace(
        "top-k = 20\n", "top-k = 30\nseed = 1\n"
    ).replace('kind."""\n', 'kind."""\ntemp = 0.1\n')


def test_a_first_change_makes_the_file(path: Path) -> None:
    change(path.parent / "deep" / "config.toml", "a/b", {"system": 'say "hi"\n\x1b', "temp": 1e-7})
    path = path.parent / "deep" / "config.toml"
    assert load(path).models == {"a/b": {"system": 'say "hi"\n\x1b', "temp": 1e-7}}
    assert path.read_text().startswith('[models."a/b"]\n')
    assert path.read_text().endswith("\n")
    change(path, None, {"temp": 0.2})
    assert load(path).everywhere == {"temp": 0.2}
    assert os.listdir(path.parent) == ["config.toml"]


def test_a_setting_written_twice_is_one_after_a_change(path: Path) -> None:
    path.write_text("top_k = 1\ntop-k = 2\n")
    change(path, None, {"top_k": 3})
    assert path.read_text() == "top_k = 3\n"


def test_removing_tells_what_was_there_and_leaves_no_empty_table(path: Path) -> None:
    path.write_text(WRITTEN)
    assert change(path, "smollm2:135m:Q4_1", {}, remove=["temp", "seed"]) == ["temp"]
    assert change(path, "acme/model-gguf", {}, remove=["system"]) == ["system"]
    assert change(path, None, {}, remove=["top_k"]) == ["top_k"]
    left = path.read_text()
    assert "smollm2" not in left
    assert "# for work" in left  # something is written there
    assert load(path) == Config({"temp": 0.5}, {"Acme/Model-GGUF": {}})
    assert change(path, "none/such", {}, remove=["temp"]) == []
    assert path.read_text() == left


def test_what_no_setting_is_called_can_be_removed_but_never_the_models(path: Path) -> None:
    path.write_text("tmp = 1\n[models.x]\ntemp = 1\nhot = true\n")
    assert change(path, None, {}, remove=["tmp", "models"]) == ["tmp"]
    assert change(path, "x", {}, remove=["hot"]) == ["hot"]
    assert load(path) == Config({}, {"x": {"temp": 1.0}})


@pytest.mark.parametrize(
    "text", ["temp = \n", "models = 3\n", "[models]\nx = 3\n", 'models = { "x" = 3 }\n', "models.x = []\n"]
)
def test_a_broken_file_is_not_written_over(text: str, path: Path) -> None:
    path.write_text(text)
    with pytest.raises(UsageError):
        change(path, "x", {"temp": 1.0})
    assert path.read_text() == text


@pytest.mark.parametrize(
    "text", ['models = { "x" = {top_k=1} }\n', "[models]\nx.top_k = 1\n", "[models.x]\r\ntop_k=1\r\n"]
)
def test_tables_in_other_notations_are_changed_too(text: str, path: Path) -> None:
    path.write_bytes(text.encode())
    change(path, "x", {"temp": 1.0})
    change(path, "y", {"temp": 2.0})
    assert load(path).models == {"x": {"top_k": 1, "temp": 1.0}, "y": {"temp": 2.0}}


def test_a_layout_that_cannot_be_kept_is_refused(path: Path) -> None:
    text = "models.x.top_k = 1\ntemp = 1\nmodels.x.seed = 3\n"
    path.write_text(text)
    with pytest.raises(UsageError, match=f"^{path} is laid out so that owm cannot change it$"):
        change(path, "y", {"temp": 1.0})
    assert path.read_text() == text


def test_a_link_stays_a_link_and_permissions_stay(path: Path) -> None:
    real = path.parent / "dotfiles" / "owm.toml"
    real.parent.mkdir()
    real.write_text("temp = 1\n")
    real.chmod(0o640)
    path.symlink_to(real)
    change(path, None, {"temp": 0.5})
    assert path.is_symlink()
    assert real.read_text() == "temp = 0.5\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_new_file_is_its_owners_alone(path: Path) -> None:
    before = os.umask(0o000)
    try:
        change(path, None, {"temp": 0.5})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_changes_at_once_all_hold(path: Path) -> None:
    threads = [threading.Thread(target=change, args=(path, f"a/m{i}", {"seed": i})) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert load(path).models == {f"a/m{i}": {"seed": i} for i in range(12)}


def test_a_change_that_takes_too_long_is_not_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "LOCK_SECONDS", 0.01)
    said: list[str] = []

    def second() -> None:
        with pytest.raises(StoreError) as caught:
            change(path, None, {"temp": 1.0})
        said.append(str(caught.value))

    with config._locked(path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert said == [f"another owm is changing {path}"]
    assert not path.exists()


_values = st.fixed_dictionaries(
    {},
    optional={
        "temp": st.floats(0, 100),
        "top_k": st.integers(0, 1 << 30),
        "repeat_last_n": st.integers(-1, 100),
        "system": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        "think": st.sampled_from(KEYS["think"].choices),
    },
)
_name = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.none() | _name, _values), max_size=5))
def test_whatever_is_set_is_read_back(changes: list[tuple[str | None, dict[str, object]]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.toml")
        everywhere: dict[str, object] = {}
        models: dict[str, dict[str, object]] = {}
        for name, values in changes:
            change(path, name, values)  # type: ignore[arg-type]
            if name is None:
                everywhere |= values
            elif values:
                models.setdefault(config.same_name(name, models) or name, {}).update(values)
        read = load(path)
    assert read.everywhere == everywhere
    assert read.models == models


def test_models_that_are_no_tables_are_left_to_who_reads_them(path: Path) -> None:
    path.write_text("models = 5\n")
    change(path, None, {"temp": 0.5})
    assert path.read_text() == "models = 5\ntemp = 0.5\n"
