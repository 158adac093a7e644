"""What `owm rm` and `owm verify --repair` leave when they are killed: the same command removes it."""

from pathlib import Path

import pytest

from owm.store.local import Store
from owm.store.usage import ASIDE
from support.dying import die
from support.hub_server import HubServer, Repo
from support.run import run_here
from support.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.slow

RM = "from owm.cli.app import main; main(['rm', 'me/tiny:Q8_0', '--yes'])"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def blob(hub: HubServer, store: Store, capsys: Capture) -> Path:
    """The bytes of a model in the Hub cache, beside those of another in the same repo."""
    hub.add(Repo("me/tiny", {"tiny-Q8_0.gguf": tiny_gguf(), "tiny-Q4_0.gguf": tiny_gguf(seed=2)}))
    for quant in ("Q8_0", "Q4_0"):
        assert run_here(capsys, "pull", f"me/tiny:{quant}").exit_code == 0
    (model,) = (model for model in store.models() if model.label == "Q8_0")
    return model.path.resolve()


def test_bytes_whose_link_a_kill_has_left_without_go_with_the_same_command(
    blob: Path, store: Store, capsys: Capture
) -> None:
    die("os.remove", blob.name, RM)
    assert blob.exists()
    assert not list(store.hub.rglob("tiny-Q8_0.gguf"))
    done = run_here(capsys, "rm", "me/tiny:Q8_0", "--yes")
    assert done.exit_code == 0, done.stderr
    assert not blob.exists()
    (other,) = store.models()
    assert other.path.read_bytes() == tiny_gguf(seed=2)


def test_bytes_that_another_link_leads_to_stay(blob: Path, store: Store, capsys: Capture) -> None:
    (link,) = store.hub.rglob("tiny-Q8_0.gguf")
    other = link.parent.parent / ("c" * 40) / link.name
    other.parent.mkdir()
    other.symlink_to(blob)
    assert run_here(capsys, "rm", "me/tiny:Q8_0", "--yes").exit_code == 0
    assert other.read_bytes() == tiny_gguf()


def test_what_a_killed_repair_had_put_aside_goes(blob: Path, capsys: Capture) -> None:
    aside = blob.with_name(blob.name + ASIDE)
    aside.write_bytes(b"damaged")
    assert run_here(capsys, "verify").exit_code == 0
    assert aside.exists()
    assert run_here(capsys, "verify", "--repair").exit_code == 0
    assert not aside.exists()
    assert blob.read_bytes() == tiny_gguf()
