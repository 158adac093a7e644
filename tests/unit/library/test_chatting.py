"""Conversations with an open model: what is read is what the session says, and every answer what it would have been."""

import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from owm.chat import voice
from owm.chat.session import Session
from owm.engine import generate
from owm.engine.model import Model
from owm.engine.sampling import Sampling
from owm.engine.wishes import Wishes
from owm.errors import EngineError, NotEnoughDisk, PromptTooLong, UsageError
from owm.library.chatting import Chat, Reply, Terms, open_chat, read_overflow
from owm.native import llama
from owm.paths import owm_home
from support.scripted_gguf import write_scripted_gguf
from support.tiny_gguf import write_tiny_gguf
from support.tiny_recurrent import write_tiny_hybrid, write_tiny_mamba
from support.tiny_sliding import write_tiny_falcon_h1, write_tiny_gemma3

WRITERS = [write_tiny_gguf, write_tiny_mamba, write_tiny_hybrid, write_tiny_gemma3, write_tiny_falcon_h1]
GREEDY = Sampling(temp=0, ignore_eos=True)
N = 9  # tokens of an answer
SHA256 = "a" * 64


def terms(n: int | None = N, *, n_ctx: int | None = None, **more: Any) -> Terms:
    return Terms(Wishes(GREEDY, max_tokens=n, n_ctx=n_ctx, **more))


@pytest.fixture(autouse=True)
def quick_handover(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "HANDOVER_SECONDS", 0.001)


@pytest.fixture(scope="module", params=WRITERS, ids=lambda write: write.__name__.removeprefix("write_tiny_"))
def each_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    write: Callable[[Path], Path] = request.param
    with Model([write(tmp_path_factory.mktemp("m") / "tiny.gguf")], n_gpu_layers=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = write_tiny_gguf(tmp_path_factory.mktemp("m") / "tiny.gguf", n_ctx_train=8192)
    with Model([path], n_gpu_layers=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A model whose context is soon full."""
    path = write_tiny_gguf(tmp_path_factory.mktemp("m") / "tiny.gguf", n_ctx_train=512)
    with Model([path], n_gpu_layers=0) as opened:
        yield opened


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session.create(tmp_path / "sessions") as opened:
        yield opened


@contextmanager
def chatting(session: Session, model: Model, of: Terms | None = None, **more: Any) -> Iterator[Chat]:
    more = {"model_name": "tiny", "model_sha256": SHA256, **more}
    with open_chat(session, model, of or terms(), **more) as opened:
        yield opened


def finish(reply: Reply) -> str:
    """Wait for an answer, and return it."""
    for _ in reply:
        pass
    return reply.answers[0].text


def said(session: Session) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in session.path()]


def unbroken(model: Model, session: Session, of: Terms | None = None) -> list[tuple[str, str]]:
    """Return what would have been said on the branch where a session stands, had there been no other."""
    with chatting(other := Session.private(), model, of) as chat:
        other.set_system(session.system)
        for turn in session.path():
            if turn.role == "user":
                finish(chat.ask(turn.content))
    return said(other)


def test_a_turn_is_added_before_its_answer_and_the_answer_after_it(model: Model, session: Session) -> None:
    with chatting(session, model) as chat:
        reply = chat.ask("Hello @file", typed="Hello", attachments=["file"])
        [turn] = session.path()
        assert (turn.role, turn.content, turn.typed, turn.attachments) == ("user", "Hello @file", "Hello", ("file",))
        text = finish(reply)
        answer = session.path()[1]
        assert reply.turn == answer
        assert (answer.role, answer.content, answer.parent) == ("assistant", text, turn.id)
        assert (answer.model, answer.model_sha256, answer.finish_reason) == ("tiny", SHA256, "length")
        assert answer.tokens is not None
        assert len(answer.tokens) == N
        assert answer.usage["completion_tokens"] == N
        assert answer.seconds is not None
        assert answer.settings["temp"] == 0
        assert chat.last is not None
        assert chat.last.n_generated == N
    assert session.file is not None
    assert Session.read(session.file).path() == session.path()


def test_what_is_fed_is_the_rendered_conversation(each_model: Model, session: Session) -> None:
    session.set_system("Be brief.")
    with chatting(session, each_model) as chat:
        for text in ("one", "two more", "and three"):
            history = [{"role": role, "content": content} for role, content in said(session)]
            prompt = each_model.chat_prompt(
                [{"role": "system", "content": "Be brief."}, *history, {"role": "user", "content": text}]
            )
            reply = chat.ask(text)
            finish(reply)
            held = list(chat._voice.held())
            assert held == [*prompt.tokens, *reply.tokens[0]][: len(held)]
            assert len(held) >= len(prompt.tokens)
            assert chat.last is not None
            assert chat.last.n_prompt == len(prompt.tokens)


def test_what_was_fed_is_compared_with_the_conversation(model: Model, session: Session) -> None:
    with chatting(session, model) as chat:
        reply = chat.ask("one")
        chat._check_fed(range(100), [])
        list(reply)
        with pytest.raises(EngineError, match="is not the conversation"):
            chat._check_fed(range(100), [])
        assert finish(chat.ask("two"))


def test_only_what_is_new_is_read(model: Model, session: Session) -> None:
    with chatting(session, model) as chat:
        finish(chat.ask("some words to begin with, and then a few more of them"))
        n_before = chat.last.n_prompt  # type: ignore[union-attr]
        finish(chat.ask("two"))
        assert chat.last is not None
        assert chat.last.n_held >= n_before
        session.undo()
        finish(chat.ask("three"))
        assert chat.last.n_held >= n_before
        session.retry()
        finish(chat.again())
        assert chat.last.n_held == chat.last.n_prompt - 1


@pytest.mark.parametrize("seed", range(3))
def test_after_any_walk_the_answers_are_those_of_an_unbroken_conversation(
    each_model: Model, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    of = terms(5)
    session = Session.create(tmp_path)
    session.set_system("Be brief.")
    path = session.file
    assert path is not None
    done: list[str] = []
    for _ in range(3):  # processes
        with session, chatting(session, each_model, of) as chat:
            for _ in range(7):
                asked = [turn for turn in session.path() if turn.role == "user"]
                steps = ["ask", "ask", "keep", "fork", "cut"]
                if asked:
                    steps += ["undo", "retry", "edit", "switch", "drafts"]
                step = chance.choice(steps)
                if len(session.path()) > 8:
                    step = "edit"
                done.append(step)
                text = f"turn {chance.randrange(1000)} {'word ' * chance.randrange(4)}"
                if step == "ask":
                    finish(chat.ask(text))
                elif step == "keep":
                    chat.keep()
                elif step == "fork":
                    session.fork()
                elif step == "undo":
                    session.undo()
                elif step == "retry":
                    session.retry()
                    finish(chat.again())
                elif step == "edit":
                    session.edit(chance.randint(1, len(asked)))
                    finish(chat.ask(text))
                elif step == "switch":
                    session.switch(str(chance.choice(session.branches()).number))
                elif step == "drafts":
                    session.retry()
                    reply = chat.drafts(2)
                    list(reply)
                    chat.pick(reply, chance.randint(1, 2))
                else:  # a turn that is cut off is taken back
                    reply = chat.ask(text)
                    for _ in reply:
                        break
                    session.undo()
                if session.path() and session.path()[-1].role == "user":
                    finish(chat.again())
                assert said(session) == unbroken(each_model, session, of), done
            chat.keep()
        session = Session.open(path)
    session.close()


def test_a_new_process_reads_only_what_is_new(each_model: Model, tmp_path: Path) -> None:
    with Session.create(tmp_path) as session, chatting(session, each_model) as chat:
        finish(chat.ask("some words to begin with, and then a few more of them"))
        assert chat.last is not None
        n_prompt = chat.last.n_prompt
        assert chat.keep() is not None
        assert chat.keep() is None
        path = session.file
    assert path is not None
    with Session.open(path) as session, chatting(session, each_model) as chat:
        finish(chat.ask("two"))
        assert chat.last is not None
        # What noise says has other tokens as text, so there is not always more of it than the prompt.
        assert n_prompt - 1 <= chat.last.n_held
        assert said(session) == unbroken(each_model, session)


def test_an_answer_that_is_stopped_is_kept(each_model: Model, session: Session) -> None:
    with chatting(session, each_model, terms(None)) as chat:
        reply = chat.ask("one")
        texts: list[str] = []
        for n, chunk in enumerate(reply):
            texts.append(chunk.text)
            if n == 5:
                reply.cancel()
        assert reply.answers[0].finish_reason == "cancelled"
        turn = session.path()[-1]
        assert (turn.content, turn.finish_reason) == ("".join(texts), "cancelled")
        chat.set(terms())
        finish(chat.ask("two"))
        assert len(session.path()) == 4


def test_leaving_an_answer_keeps_it(model: Model, session: Session) -> None:
    with chatting(session, model, terms(None)) as chat:
        reply = chat.ask("one")
        shown = ""
        for n, chunk in enumerate(reply):
            shown += chunk.text
            if n == 5:
                break
        rest = "".join(chunk.text for chunk in reply.rest())
        assert reply.turn is not None
        assert reply.turn.content == shown + rest == session.path()[-1].content
        assert reply.rest() == []
        assert list(reply) == []


def test_an_interrupt_while_an_answer_is_shown_keeps_it(model: Model, session: Session) -> None:
    with chatting(session, model, terms(None)) as chat:
        reply = chat.ask("one")
        shown = ""
        try:
            for n, chunk in enumerate(reply):
                if n == 3:
                    raise KeyboardInterrupt
                shown += chunk.text
        except KeyboardInterrupt:
            pass
        rest = reply.rest()
        assert rest[-1].finish_reason is not None
        assert session.path()[-1].finish_reason == "cancelled"
        assert session.path()[-1].content.startswith(shown)


def test_an_answer_that_was_never_looked_at_is_none(model: Model, session: Session) -> None:
    with chatting(session, model) as chat:
        chat.ask("one")
        assert finish(chat.ask("two"))
        assert session.path()[0].content == "two"
        assert [turn.content for turn in session.children(None)] == ["one", "two"]


def test_an_answer_without_a_word_is_no_turn(tmp_path: Path, session: Session) -> None:
    path = write_scripted_gguf(tmp_path / "m.gguf", " \n")
    with Model([path], n_gpu_layers=0) as opened, chatting(session, opened, Terms()) as chat:
        reply = chat.ask("one")
        list(reply)
        assert reply.turn is None
        assert [turn.role for turn in session.path()] == ["user"]


def test_an_answer_that_fails_is_kept_as_far_as_it_came(
    model: Model, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    with chatting(session, model, terms(None)) as chat:
        reply = chat.ask("one")
        with monkeypatch.context() as patch:
            chunks = iter(reply)
            for _ in range(3):
                next(chunks)
            patch.setattr(llama.Context, "decode", lambda self: 1)
            with pytest.raises(EngineError):
                list(chunks)
        assert reply.answers[0].finish_reason == "failed"
        assert session.path()[-1].finish_reason == "failed"
        assert session.path()[-1].content
        chat.set(terms())
        session.undo()
        finish(chat.ask("two"))
        assert said(session) == unbroken(model, session)


def test_a_turn_that_nobody_answered_is_answered_later_or_left(model: Model, tmp_path: Path) -> None:
    with Session.create(tmp_path) as session:
        session.add_turn("user", "one")
        path = session.file
    assert path is not None
    with Session.open(path) as session, chatting(session, model) as chat:
        finish(chat.again())
        assert said(session) == unbroken(model, session)
        with pytest.raises(UsageError, match="nothing to answer"):
            chat.again()
        session.add_turn("user", "left alone")
        finish(chat.ask("two"))
        assert [turn.content for turn in session.path()][::2] == ["one", "two"]
        assert "left alone" in [turn.content for turn in session.turns.values()]
        assert said(session) == unbroken(model, session)


def test_thoughts_are_kept_apart_and_not_read_again(tmp_path: Path, session: Session) -> None:
    path = write_scripted_gguf(
        tmp_path / "m.gguf", "<think>hm, well</think>\n\nYes.", marks=("<think>", "</think>"), n_ctx_train=2048
    )
    with Model([path], n_gpu_layers=0) as opened, chatting(session, opened, Terms(Wishes(Sampling(temp=0)))) as chat:
        finish(chat.ask("one"))
        turn = session.path()[-1]
        assert (turn.content, turn.reasoning, turn.finish_reason) == ("Yes.", "hm, well", "stop")
        n_before = chat.last.n_prompt  # type: ignore[union-attr]
        chat.keep()
        finish(chat.ask("two"))
        assert chat.last is not None
        assert chat.last.n_held == n_before
        assert "hm" not in chat._voice.prompt(chat._messages()[:3], is_open=False).text


def test_a_full_disk_costs_no_turn(model: Model, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    is_full = True

    def fails(fd: int, content: Any) -> int:
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, content)

    with chatting(session, model) as chat:
        finish(chat.ask("one"))
        monkeypatch.setattr("owm.chat.session_file.os.write", fails)
        reply = chat.ask("two")
        assert isinstance(reply.problem, NotEnoughDisk)
        finish(reply)
        assert isinstance(reply.problem, NotEnoughDisk)
        assert len(session.path()) == 4
        is_full = False
        reply = chat.ask("three")
        assert reply.problem is None
        finish(reply)
        assert said(session) == unbroken(model, session)
    assert session.file is not None
    assert Session.read(session.file).path() == session.path()


def test_a_private_conversation_leaves_nothing(model: Model) -> None:
    with chatting(session := Session.private(), model) as chat:
        finish(chat.ask("some words to begin with, and then a few more of them"))
        assert chat.keep() is None
        assert len(session.path()) == 2
    assert not list(owm_home().rglob("*"))


def test_without_snapshots_a_session_is_kept_all_the_same(model: Model, session: Session) -> None:
    for more in ({"keeps": False}, {"model_sha256": None}):
        with chatting(session, model, **more) as chat:
            finish(chat.ask("one"))
            assert chat.keep() is None


def test_a_snapshot_is_not_written_while_an_answer_is_made(model: Model, session: Session) -> None:
    with chatting(session, model, terms(None)) as chat:
        reply = chat.ask("one")
        kept: list[Path | None] = []
        for n, _ in enumerate(reply):
            if n == 3:
                thread = threading.Thread(target=lambda: kept.append(chat.keep()))
                thread.start()
                thread.join()
                reply.cancel()
        assert kept == [None]
        assert chat.keep() is not None


# -- the size of the context ------------------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts begin small."""
    monkeypatch.setattr(voice, "DEFAULT_CONTEXT", 256)
    monkeypatch.setattr("owm.engine.context.ROOM_FOR_ANSWER", 64)


@pytest.mark.usefixtures("short")
def test_the_context_grows_with_the_conversation(model: Model, session: Session) -> None:
    sizes = []
    with chatting(session, model) as chat:
        for turn in range(8):
            finish(chat.ask(f"{turn} " + "word " * (20 + 10 * turn)))
            sizes.append(chat.use().n_allocated)
            assert chat.last is not None
            assert turn == 0 or chat.last.n_held > 100 * turn
        assert sizes[0] == 256
        assert sizes == sorted(sizes)
        assert sizes[-1] > 1500
        assert chat.n_ctx == 8192
    assert said(session) == unbroken_large(model, session)


def unbroken_large(model: Model, session: Session, of: Terms | None = None) -> list[tuple[str, str]]:
    """Return the same from a context that has room for all from the beginning."""
    of = of or terms()
    return unbroken(model, session, Terms(Wishes(of.wishes.sampling, of.wishes.max_tokens, n_ctx=4096)))


@pytest.mark.usefixtures("short")
def test_the_context_grows_in_the_midst_of_an_answer(each_model: Model, session: Session) -> None:
    def begin(chat: Chat) -> list[int]:
        reply = chat.ask("one")
        for n, _ in enumerate(reply):
            if n == 700:
                break
        return reply.tokens[0]

    with chatting(session, each_model, terms(None)) as chat:
        assert chat.use().n_allocated == 256
        tokens = begin(chat)
        assert chat.use().n_allocated == min(1024, chat.n_ctx)
    assert len(tokens) > 450
    n_ctx = min(2048, each_model.native.n_ctx_train)
    with chatting(Session.private(), each_model, terms(None, n_ctx=n_ctx)) as chat:
        assert [a == b for a, b in zip(begin(chat), tokens, strict=False)].count(False) == 0


@pytest.mark.usefixtures("short")
def test_where_memory_has_no_room_the_context_stays_as_it_is(
    model: Model, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = llama.Context.__init__

    def fails(self: llama.Context, *args: Any, n_ctx: int, **more: Any) -> None:
        if n_ctx > 512:
            raise EngineError(f"llama.cpp cannot make a context of {n_ctx} tokens")
        make(self, *args, n_ctx=n_ctx, **more)

    monkeypatch.setattr(llama.Context, "__init__", fails)
    with chatting(session, model) as chat:
        finish(chat.ask("word " * 20))
        with pytest.raises(PromptTooLong, match="memory allows holds 256"):
            chat.ask("word " * 80)
        assert len(session.path()) == 2
        assert (chat.n_ctx, chat.use().limited_by) == (256, "memory")
        finish(chat.ask("two"))
        assert chat.last is not None
        assert chat.last.n_held > 50
        assert said(session) == unbroken(model, session)


@pytest.mark.usefixtures("short")
def test_an_answer_ends_where_memory_has_no_more_room(
    model: Model, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = llama.Context.__init__

    def fails(self: llama.Context, *args: Any, n_ctx: int, **more: Any) -> None:
        if n_ctx > 256:
            raise EngineError(f"llama.cpp cannot make a context of {n_ctx} tokens")
        make(self, *args, n_ctx=n_ctx, **more)

    monkeypatch.setattr(llama.Context, "__init__", fails)
    with chatting(session, model, terms(None)) as chat:
        reply = chat.ask("one")
        finish(reply)
        assert reply.answers[0].hit_context_end
        assert chat.use().n_used > 200


def test_what_was_asked_for_is_the_size(model: Model, session: Session) -> None:
    with chatting(session, model, terms(n_ctx=512)) as chat:
        assert (chat.n_ctx, chat.use().n_allocated, chat.use().limited_by) == (512, 512, "asked")
        finish(chat.ask("one"))
        chat.set(terms(n_ctx=1024))
        assert (chat.n_ctx, chat.use().n_allocated) == (1024, 0)
        finish(chat.ask("two"))
        assert chat.use().n_allocated == 1024
        with pytest.raises(UsageError):
            chat.set(terms(think_budget=-1))
        assert said(session) == unbroken(model, session)


def test_what_does_not_fit_is_refused_and_nothing_is_added(small: Model, session: Session) -> None:
    with chatting(session, small) as chat:
        finish(chat.ask("one"))
        room = chat.room("word " * 200)
        assert not room.fits
        assert room.n_over == room.n_prompt + room.n_kept - 512
        with pytest.raises(PromptTooLong, match="holds 512") as raised:
            chat.ask("word " * 200)
        assert raised.value.n_prompt == room.n_prompt
        assert len(session.turns) == 2
        assert chat.room("two").fits
        assert chat.room().fits
        finish(chat.ask("two"))
        assert said(session) == unbroken(small, session)


def test_a_conversation_that_came_to_be_too_long_for_the_model_is_opened(small: Model, session: Session) -> None:
    session.add_turn("user", "word " * 300)
    session.add_turn("assistant", "word " * 300)
    with chatting(session, small) as chat:
        assert not chat.room("one").fits
        assert chat.use().n_used > 512
        assert chat.drop("one") == 2
        assert finish(chat.ask("one"))


def test_the_use_of_the_context_is_told(model: Model, session: Session) -> None:
    session.set_system("Be brief.")
    with chatting(session, model) as chat:
        assert chat.use().n_used > 0
        finish(chat.ask("one"))
        finish(chat.ask("two"))
        use = chat.use()
        assert [turn.id for turn, _ in use.turns] == [1, 2, 3, 4]
        assert use.n_system == len(model.native.tokenize("Be brief.", add_special=False, parse_special=False))
        assert sum(n for _, n in use.turns) + use.n_system < use.n_used
        assert 0 < use.n_held <= use.n_used
        assert (use.n_ctx, use.n_allocated, use.limited_by, use.compacted) == (8192, 8192, "model", None)


def test_dropping_forgets_as_few_exchanges_as_it_takes(small: Model, session: Session) -> None:
    with chatting(session, small) as chat:
        for turn in range(4):
            finish(chat.ask(f"{turn} " + "word " * 10))
        content = "word " * 30
        assert not chat.room(content).fits
        n = chat.drop(content)
        assert n in (2, 4)
        assert chat.room(content).fits
        assert chat.drop(content) == 0
        finish(chat.ask(content))
        assert len(session.path()) == 10
        compaction, turns = session.condensed()
        assert compaction is not None
        assert compaction.summary is None
        assert [turn.id for turn in turns] == list(range(n + 1, 11))
        with pytest.raises(PromptTooLong, match="this turn alone"):
            chat.drop("word " * 300)
        assert session.condensed()[0] == compaction


def test_dropping_more_keeps_the_summary_if_that_is_enough(small: Model, session: Session) -> None:
    with chatting(session, small) as chat:
        for turn in range(3):
            finish(chat.ask(f"{turn} " + "word " * 10))
        session.compact(2, "short")
        content = "word " * 60
        assert not chat.room(content).fits
        assert chat.drop(content) == 2
        compaction = session.condensed()[0]
        assert compaction is not None
        assert (compaction.through, compaction.summary) == (4, "short")
        session.compact(4, "word " * 45)
        assert chat.drop(content) == 0
        compaction = session.condensed()[0]
        assert compaction is not None
        assert compaction.summary is None
        assert chat.room(content).fits


# -- summaries --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def summarising(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A model that says the same to everything, and can read 2,048 tokens."""
    path = write_scripted_gguf(tmp_path_factory.mktemp("m") / "m.gguf", "They spoke of many words.", n_ctx_train=2048)
    with Model([path], n_gpu_layers=0) as opened:
        yield opened


PLAIN = Terms(Wishes(Sampling(temp=0)))


def talk(chat: Chat, n: int, n_words: int = 60) -> None:
    for turn in range(n):
        finish(chat.ask(f"{turn} " + "word " * n_words))


def test_a_summary_stands_for_the_oldest_turns(summarising: Model, session: Session) -> None:
    with chatting(session, summarising, PLAIN) as chat:
        talk(chat, 4)
        content = "word " * 60
        assert not chat.room(content).fits
        before = chat.use().n_used
        compacting = chat.compact(content)
        assert compacting.n_tokens_before >= before
        text = "".join(chunk.text for chunk in compacting)
        assert compacting.summary == text == "They spoke of many words."
        assert compacting.n_turns in (2, 4, 6)
        assert compacting.n_tokens_after is not None
        assert compacting.n_tokens_after < compacting.n_tokens_before
        assert chat.room(content).fits
        assert len(session.path()) == 8
        finish(chat.ask(content))
        first = chat._messages()[0]
        assert "They spoke of many words." in str(first["content"])
        assert first["role"] == "user"
        assert chat.use().compacted == session.condensed()[0]
        assert session.file is not None
    assert Session.read(session.file).condensed() == session.condensed()


def test_half_of_the_context_is_free_after_a_summary(summarising: Model, session: Session) -> None:
    with chatting(session, summarising, PLAIN) as chat:
        talk(chat, 4)
        list(chat.compact())
        assert chat.use().n_used <= 1024
        n = len(session.condensed()[1])
        compacting = chat.compact()  # half is free: all but the last exchange
        list(compacting)
        assert compacting.n_turns == max(2, n - 2)


def test_a_summary_that_is_stopped_changes_nothing(summarising: Model, session: Session) -> None:
    with chatting(session, summarising, PLAIN) as chat:
        talk(chat, 3)
        compacting = chat.compact()
        for n, _ in enumerate(compacting):
            if n == 2:
                compacting.cancel()
        assert compacting.summary is None
        for _ in chat.compact():
            break
        assert session.condensed()[0] is None
        assert finish(chat.ask("go on"))


def test_what_does_not_fit_is_summarised_in_parts(summarising: Model, session: Session) -> None:
    for turn in range(6):
        session.add_turn("user", f"{turn} " + "word " * 150)
        session.add_turn("assistant", "yes")
    with chatting(session, summarising, PLAIN) as chat:
        assert chat.use().n_used > 2048
        compacting = chat.compact()
        chunks = list(compacting)
        assert compacting.summary == "They spoke of many words."
        assert sum(chunk.finish_reason is not None for chunk in chunks) >= 2
        assert chat.use().n_used <= 1024
        assert chat.room("one").fits


def test_a_turn_that_is_too_long_to_be_summarised_is_told_of(summarising: Model, session: Session) -> None:
    session.add_turn("user", "word " * 600)
    session.add_turn("assistant", "yes")
    with chatting(session, summarising, PLAIN) as chat:
        with pytest.raises(PromptTooLong, match="too long to be summarised"):
            list(chat.compact("one"))
        assert session.condensed()[0] is None


def test_there_has_to_be_something_to_summarise(model: Model, session: Session) -> None:
    with chatting(session, model) as chat:
        with pytest.raises(UsageError, match="nothing to summarise"):
            chat.compact()
        session.add_turn("user", "one")
        with pytest.raises(UsageError, match="nothing to summarise"):
            chat.compact()


def test_going_back_before_a_summary_reads_the_turns_again(summarising: Model, session: Session) -> None:
    with chatting(session, summarising, PLAIN) as chat:
        talk(chat, 3)
        list(chat.compact())
        compaction = session.condensed()[0]
        assert compaction is not None
        session.move_to(session.turns[compaction.through].parent)
        assert session.condensed()[0] is None
        assert "in short" not in str(chat._messages()[0]["content"])


# -- drafts -----------------------------------------------------------------------------------------------------------


def test_drafts_become_turns_when_one_is_picked(model: Model, session: Session) -> None:
    of = Terms(Wishes(Sampling(temp=8, top_k=0, top_p=1.0, min_p=0.0, seed=7, ignore_eos=True), N))
    with chatting(session, model, of) as chat:
        finish(chat.ask("one"))
        first = session.path()[-1].content
        session.retry()
        reply = chat.drafts(3)
        list(reply)
        assert reply.turn is None
        assert len({answer.text for answer in reply.answers}) == 3
        assert [turn.role for turn in session.path()] == ["user"]
        turn = chat.pick(reply, 2)
        assert turn == session.path()[-1] == reply.turn
        assert turn.content == reply.answers[1].text
        texts = {turn.content for turn in session.children(1)}
        assert texts == {first, *(answer.text for answer in reply.answers)}
        assert len(session.branches()) == 4
        finish(chat.ask("two"))
        assert chat.last is not None
        assert len(session.path()) == 4
        with pytest.raises(UsageError, match="nothing to answer"):
            chat.pick(reply, 1)
        with pytest.raises(UsageError, match="no draft 4"):
            chat.pick(reply, 4)


def test_there_are_only_so_many_drafts(model: Model, session: Session) -> None:
    session.add_turn("user", "one")
    with chatting(session, model, n_drafts=2) as chat:
        assert chat.n_drafts == 2
        with pytest.raises(UsageError, match="1 to 2 drafts: 3"):
            chat.drafts(3)


def test_drafts_that_are_stopped_can_be_picked(model: Model, session: Session) -> None:
    with chatting(session, model, terms(None)) as chat:
        session.add_turn("user", "one")
        reply = chat.drafts(2)
        for n, _ in enumerate(reply):
            if n == 20:
                break
        turn = chat.pick(reply, 1)
        assert turn.finish_reason == "cancelled"
        assert len(session.children(1)) == 2


def test_what_is_to_be_done_when_it_no_longer_fits_is_read() -> None:
    assert read_overflow("compact") == "compact"
    with pytest.raises(UsageError, match="ask, compact, drop or error"):
        read_overflow("cut")


def test_another_model_goes_on_with_the_conversation(model: Model, small: Model, session: Session) -> None:
    with chatting(session, model) as chat:
        finish(chat.ask("one"))
    with chatting(session, small, model_name="other", model_sha256="b" * 64) as chat:
        finish(chat.ask("two"))
    names = [turn.model for turn in session.path()]
    assert names == [None, "tiny", None, "other"]


def test_growing_after_a_return_needs_no_reading(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice, "DEFAULT_CONTEXT", 256)
    with Session.create(tmp_path) as session, chatting(session, model) as chat:
        talk(chat, 3, 30)
        chat.keep()
        path = session.file
    assert path is not None
    with Session.open(path) as session, chatting(session, model) as chat:
        n_held = chat.use().n_held
        assert n_held > 400
        talk(chat, 1, 200)
        assert chat.last is not None
        assert chat.last.n_held >= n_held
