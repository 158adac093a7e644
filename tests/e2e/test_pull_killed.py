"""`owm pull` that is killed between the weights and what comes along with them: the same command brings the rest."""

from pathlib import Path

import pytest

from owm.store.local import Store
from support.dying import die
from support.hub_server import HubServer, Repo
from support.run import run_here
from support.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.slow

ADVICE = b'{"top_k": 7}'
PULL = "from owm.cli.app import main; main(['pull', 'me/tiny:Q8_0'])"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def repo(hub: HubServer) -> Repo:
    return hub.add(Repo("me/tiny", {"tiny-Q8_0.gguf": tiny_gguf(), "generation_config.json": ADVICE}))


def test_what_comes_along_is_brought_by_the_same_command(repo: Repo, store: Store, capsys: Capture) -> None:
    advice = repo.oid("generation_config.json")
    die("open", f"{advice}.owm.incomplete", PULL)
    assert list(store.hub.rglob("*.gguf"))
    assert store.models() == []
    done = run_here(capsys, "pull", "me/tiny:Q8_0")
    assert done.exit_code == 0, done.stderr
    (model,) = store.models()
    assert model.manifest is not None
    assert model.manifest.owner is None  # owm's own, not what another program had put there
    assert model.manifest.generation_config is not None
    assert Path(store.file_path(model.manifest.generation_config)).read_bytes() == ADVICE
    (ref,) = store.hub.glob("models--*/refs/main")
    assert ref.read_text() == repo.commit


def test_offline_its_weights_are_used(repo: Repo, store: Store, capsys: Capture) -> None:
    die("open", f"{repo.oid('generation_config.json')}.owm.incomplete", PULL)
    done = run_here(capsys, "pull", "me/tiny:Q8_0", "--offline")
    assert done.exit_code == 0, done.stderr
    assert len(store.models()) == 1
