"""Where things lie: owm's own tree, and the Hub's cache by the Hub library's own rules."""

from pathlib import Path

import platformdirs
import pytest

from owm.paths import config_home, hub_cache, owm_home
from support.run import run

CACHE_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")


def test_owm_home_is_the_variable_or_the_users_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert owm_home({"OWM_HOME": str(tmp_path)}) == tmp_path
    assert owm_home({}) == owm_home({"OWM_HOME": ""}) == Path(platformdirs.user_data_dir("owm", appauthor=False))
    assert owm_home({}).name == "owm"
    monkeypatch.setenv("OWM_HOME", str(tmp_path / "other"))
    assert owm_home() == tmp_path / "other"


def test_a_home_is_absolute_and_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert owm_home({"OWM_HOME": "models"}) == tmp_path / "models"
    assert owm_home({"OWM_HOME": "~/models"}) == tmp_path / "me" / "models"
    assert owm_home({"OWM_HOME": "$HOME/models"}) == tmp_path / "me" / "models"
    assert owm_home({"OWM_HOME": "~nobody-of-that-name/x"}) == tmp_path / "~nobody-of-that-name" / "x"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"HF_HOME": "/a/hf"},
        {"HF_HOME": "~/hf"},
        {"HF_HOME": "$HOME/hf"},
        {"HF_HOME": "/a", "HF_HUB_CACHE": "/b/hub"},
        {"HF_HUB_CACHE": "~/x", "HUGGINGFACE_HUB_CACHE": "/c"},
        {"HUGGINGFACE_HUB_CACHE": "/c", "HF_HOME": "/a"},
        {"HUGGINGFACE_HUB_CACHE": "${HOME}/c"},
        {"XDG_CACHE_HOME": "/xdg"},
        {"XDG_CACHE_HOME": "/xdg", "HF_HOME": "/a"},
        {"XDG_CACHE_HOME": "~/xdg"},
        {"HF_HOME": "~nobody-of-that-name/hf"},
        {"HF_HUB_CACHE": "relative/hub"},
    ],
    ids=str,
)
def test_the_hub_cache_is_where_the_hub_library_has_it(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    code = "import os; from huggingface_hub import constants; print(os.path.abspath(constants.HF_HUB_CACHE))"
    theirs = run(["-c", code], {name: variables.get(name) for name in CACHE_VARIABLES})
    assert str(hub_cache(variables)) == theirs.strip()


def test_the_environment_of_the_process_is_meant_where_none_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert hub_cache() == tmp_path
    monkeypatch.setenv("HF_HUB_CACHE", "")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert hub_cache() == tmp_path / "hf" / "hub"


def test_settings_lie_in_the_home_or_the_users_config_folder(tmp_path: Path) -> None:
    assert config_home({"OWM_HOME": str(tmp_path)}) == tmp_path
    assert config_home({}) == Path(platformdirs.user_config_dir("owm", appauthor=False))
