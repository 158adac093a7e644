"""The folder of sessions: found by id and title, searched, exported, removed."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from owm.chat.export import as_html, as_json, as_markdown
from owm.chat.session import Session, is_id, new_id
from owm.chat.sessions import EXCERPT_CHARS, Sessions, open_sessions
from owm.engine.turns import read_turns
from owm.errors import NotFound, StoreError, UsageError
from owm.paths import owm_home


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return Sessions(tmp_path / "sessions")


def put(sessions: Sessions, *words: str, title: str | None = None, when: int = 0, session_id: str = "") -> str:
    """Make a session of turns, last used at a time in seconds."""
    with sessions.create() as session:
        session.set_model("smollm2:135m", "0" * 64)
        for number, word in enumerate(words):
            session.add_turn("assistant" if number % 2 else "user", word)
        if title is not None:
            session.set_title(title)
    assert session.file is not None
    path = session.file.rename(session.file.with_stem(session_id)) if session_id else session.file
    if when:
        os.utime(path, (when, when))
    return path.stem


def read(sessions: Sessions, name: str) -> Session:
    return Session.read(sessions.find(name))


def test_ids_are_short_and_nothing_in_them_is_misread() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(is_id(each) and re.fullmatch(r"[0-9a-hjkmnp-tv-z]{8}", each) for each in ids)
    assert not any(map(is_id, ("", "abc", "ABCDEFGH", "../../ab", "abcdefghj")))


def test_no_folder_is_no_sessions(sessions: Sessions) -> None:
    assert (sessions.summaries(), sessions.latest(), sessions.search("a")) == ([], None, [])
    assert not sessions.folder.exists()
    assert open_sessions().folder == owm_home() / "sessions"


def test_the_last_used_is_first(sessions: Sessions) -> None:
    old, new = put(sessions, "old", when=100), put(sessions, "a\nb", "c", when=300)
    middle = put(sessions, "middle", title="The middle", when=200)
    (sessions.folder / "notes.txt").touch()
    (sessions.folder / "abcdefgh.jsonl").mkdir()
    (sessions.folder / "abcdefgh.jsonl").rmdir()
    told = sessions.summaries()
    assert [summary.id for summary in told] == [new, middle, old]
    assert [summary.title for summary in told] == ["a", "The middle", "old"]
    assert [(summary.n_turns, summary.n_branches, summary.model) for summary in told[:1]] == [(2, 1, "smollm2:135m")]
    assert told[0].size_bytes == told[0].path.stat().st_size
    assert told[0].created <= told[0].updated
    assert sessions.latest() == told[0].path


def test_a_session_that_was_only_just_begun_is_not_told_of(sessions: Sessions) -> None:
    with sessions.create():
        assert sessions.summaries() == []
        assert sessions.latest() is None


def test_finding(sessions: Sessions) -> None:
    put(sessions, "why is the sky blue?", session_id="abc00000")
    put(sessions, "why  not?", title="Sky", session_id="abd00000")
    put(sessions, "x", title="abd", session_id="xyz00000")

    def found(name: str) -> str:
        return sessions.find(name).stem

    assert [found(name) for name in ("abc00000", "ABC", "abc", "why is", "x")] == ["abc00000"] * 4 + ["xyz00000"]
    assert found("sky") == "abd00000"
    assert found("abd") == "xyz00000"  # a whole title before the beginning of an id
    assert found("abd0") == "abd00000"
    with pytest.raises(UsageError, match="2 sessions are called ab") as caught:
        found("ab")
    assert sorted(re.findall(r"ab.00000", caught.value.hint or "")) == ["abc00000", "abd00000"]
    for name in ("nothing", "", "../sessions/abc00000", "zzzzzzzz"):
        with pytest.raises(NotFound):
            found(name)
    with pytest.raises(NotFound) as missed:
        sessions.find("abc", is_exact=True)
    assert missed.value.hint == "did you mean abc00000? `owm sessions` lists them"
    assert sessions.find("Sky", is_exact=True).stem == "abd00000"


def test_searching_finds_turns_with_all_words_on_any_branch_and_titles(sessions: Sessions) -> None:
    answer = "x" * 300 + " The FOX,\n\nbeing quick, " + "y" * 300
    first = put(sessions, "Tell me of the quick brown fox", answer, when=200)
    titled = put(sessions, "hello", title="Quick foxes", when=100)
    with Session.open(sessions.find(first)) as session:
        session.undo()
        session.add_turn("user", "what else?")
    found = sessions.search("fox quick")
    assert [each.summary.id for each in found] == [first, titled]
    assert [(hit.turn, hit.role) for hit in found[0].hits] == [(1, "user"), (2, "assistant")]
    assert found[0].hits[0].excerpt == "Tell me of the quick brown fox"
    assert re.fullmatch(r"…x+ The FOX, being quick, y+…", found[0].hits[1].excerpt)
    assert len(found[0].hits[1].excerpt) <= EXCERPT_CHARS + 2
    assert found[1].hits == ()
    assert sessions.search("fox dog") == []
    assert [each.summary.id for each in sessions.search(".* hello")] == []
    with pytest.raises(UsageError, match="no word"):
        sessions.search("  ")


def test_removing(sessions: Sessions) -> None:
    kept, gone = put(sessions, "a"), put(sessions, "b")
    sessions.remove(sessions.find(gone))
    assert [summary.id for summary in sessions.summaries()] == [kept]
    with pytest.raises(NotFound):
        sessions.remove(sessions.folder / f"{gone}.jsonl")
    with Session.open(sessions.find(kept)), pytest.raises(StoreError, match="another owm has"):
        sessions.remove(sessions.find(kept))


# -- exports -----------------------------------------------------------------------------------------------------------

HOSTILE = """<script>alert(1)</script> **bold** [go](javascript:alert(1)) ![seen](https://tracker.example/x.png)

<img src=x onerror=alert(1)>

| a | b |
|---|---|
| 1 | 2 |

```html
<b>code</b>\x1b[31m
```
"""


@pytest.fixture
def talked(sessions: Sessions) -> Session:
    with sessions.create() as session:
        session.set_model("smollm2:135m", "0" * 64)
        session.set_system("Be <brief>.")
        session.add_turn("user", "TEXT\n\nwhat is <b>?", typed="what is <b>? @a&b.txt", attachments=["a&b.txt"])
        session.add_turn("assistant", HOSTILE, reasoning="</details><script>", tokens=[1])
        session.add_turn("user", "half \ud800 a character")
    assert session.file is not None
    return Session.read(session.file)


def test_json_is_what_run_takes_as_messages(talked: Session) -> None:
    exported = as_json(talked)
    text = json.dumps(exported, ensure_ascii=False).replace("\ud800", "")
    turns = read_turns(text, "export")
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user"]
    assert turns[1]["content"] == "TEXT\n\nwhat is <b>?"
    assert (turns[2]["content"], turns[2]["reasoning_content"]) == (HOSTILE, "</details><script>")
    assert set(exported) == {"id", "title", "model", "model_sha256", "created", "messages"}
    assert len(as_json(talked, 1)["messages"]) == 2


def test_markdown_has_the_turns_as_they_were_written(talked: Session) -> None:
    text = as_markdown(talked)
    assert text.startswith(f"# what is <b>? @a&b.txt\n\n*smollm2:135m, begun {talked.created:%Y-%m-%d %H:%M} UTC")
    assert "## You\n\nAttached: a&b.txt\n\nwhat is <b>? @a&b.txt\n\n## smollm2:135m\n" in text
    assert "\n| 1 | 2 |\n" in text
    assert "half \ufffd a character" in text
    assert "\x1b" not in text
    text.encode()


class Page(HTMLParser):
    """What a browser makes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            assert not name.startswith("on")
            if name in ("href", "src"):
                self.links.append(value)


def test_html_is_a_page_that_runs_and_loads_nothing(talked: Session) -> None:
    text = as_html(talked)
    page = Page(text)
    assert not {"script", "img", "link", "iframe", "b"} & set(page.tags)
    assert {"table", "strong", "pre", "details"} <= set(page.tags)
    assert page.links == ["https://tracker.example/x.png"]  # to be clicked, not loaded
    assert "Content-Security-Policy" in text
    assert "what is &lt;b&gt;? @a&amp;b.txt" in text
    assert "\x1b" not in text
    text.encode()
