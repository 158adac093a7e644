"""What the commands do that go back in a conversation, part from it, or begin another one."""

from contextlib import suppress

from owm.chat.conversation import last_user_turn
from owm.cli.chat.front import count, first_words
from owm.cli.chat.loop import ChatLoop
from owm.cli.terminal import one_line
from owm.errors import OwmError, UsageError

ALTERNATIVES = 3


def undo(loop: ChatLoop, rest: str) -> None:
    """Take back the person's last turn and its answer."""
    session = loop.desk.session
    turn = last_user_turn(session.path())
    with loop.changing():
        session.undo()
    n_left = sum(each.role == "user" for each in session.path())
    left = f"{count(n_left, 'turn')} of yours left"
    loop.front.note(f"took back: {first_words(turn.words)} ({left}; `/branches` has it still)")


def retry(loop: ChatLoop, rest: str) -> None:
    """Answer the person's last turn again; the answer before stays, on a branch."""
    session = loop.desk.session
    head = session.head
    asked = last_user_turn(session.path())
    with loop.changing():
        session.retry()
    try:
        loop.answer(loop.again())
    finally:
        if session.head == asked.id != head:
            with loop.changing():
                session.move_to(head)
            loop.front.note("the answer before stands again")


def edit(loop: ChatLoop, rest: str) -> None:
    """Put a turn of the person's into the prompt; what is sent takes its place."""
    from owm.cli.chat.commands import as_typed

    asked = [turn for turn in loop.desk.session.path() if turn.role == "user"]
    number = _number(rest, "/edit", len(asked))
    if not 1 <= number <= len(asked):
        raise UsageError(
            f"there is no turn {number} of yours" if asked else "there is no turn of yours yet",
            hint=f"there are: 1 to {len(asked)}" if asked else None,
        )
    turn = asked[number - 1]
    loop.edited = number
    loop.text = as_typed(turn.words)
    if not loop.front.can_edit:
        loop.front.note(f"the next line takes the place of: {first_words(turn.words)}")
    if turn.attachments:
        loop.front.note(f"it had files with it: {', '.join(turn.attachments)}; `@path` or `/file` sends them again")


def alternatives(loop: ChatLoop, rest: str) -> None:
    """Make several answers to the last turn, of which one is picked."""
    session = loop.desk.session
    chat, head = loop.chat(), session.head
    n = _number(rest, "/alt", ALTERNATIVES)
    if not 2 <= n <= chat.n_drafts:
        raise UsageError(f"/alt makes 2 to {chat.n_drafts} answers: {n}")
    last_user_turn(session.path())
    with loop.changing():
        session.retry()
    is_picked = False
    try:
        reply = chat.drafts(n)
        loop.front.show_drafts(reply)
        usable = {
            str(number): first_words(answer.text)
            for number, answer in enumerate(reply.answers, start=1)
            if answer.text.strip()
        }
        if not usable:
            raise OwmError("none of them became an answer")
        key = loop.front.choose("which one is it?", usable)
        if key is not None:
            is_picked = True
            chat.pick(reply, int(key))
            loop.front.note(f"it goes on from answer {key}; `/branches` has the others")
    finally:
        if not is_picked:
            with loop.changing():
                session.move_to(head)
    if not is_picked:
        loop.front.note("none was picked; everything is as it was")


def fork(loop: ChatLoop, rest: str) -> None:
    """Begin a branch here."""
    session = loop.desk.session
    with loop.changing():
        session.fork(rest or None)
    loop.front.note(f"this is the branch {session.branch} now; `/branches` lists all of them")


def branches(loop: ChatLoop, rest: str) -> None:
    """List the branches."""
    found = loop.desk.session.branches()
    width = max(len(each.name or "") for each in found)
    lines = []
    for each in found:
        mark = "*" if each.is_current else " "
        name = f"{(each.name or ''):<{width}}  " if width else ""
        lines.append(one_line(f"{mark} {each.number:>2}  {name}{count(each.n_turns, 'turn'):>9}  {each.begins}"))
    loop.front.say("\n".join(lines))


def switch(loop: ChatLoop, rest: str) -> None:
    """Go to the end of a branch."""
    if not rest:
        raise UsageError("/switch needs the name or number of a branch", hint="`/branches` lists them")
    with loop.changing():
        loop.desk.session.switch(rest)
    loop.front.note(f"this is the branch {loop.desk.session.branch or rest}")
    loop.front.show_past(loop.desk.session)


def begin_anew(loop: ChatLoop, rest: str) -> None:
    """Begin another conversation; this one is kept, or nothing is done."""
    from owm.chat.session import Session

    desk, old = loop.desk, loop.desk.session
    old.flush()  # what is only in memory must not go with it
    session = Session.private() if loop.sessions is None else loop.sessions.create()
    system = old.system
    if old.turns:
        with loop.front.waiting("keeping the conversation"):
            desk.keep()
    desk.begin_anew(session)
    if system is not None:
        session.set_system(system)
    loop.waiting.clear()
    with suppress(OwmError):  # told of with the next prompt
        loop.chat()
    is_kept = old.turns and loop.sessions is not None
    other = f"; `owm chat --session {old.id}` goes on with the one before" if is_kept else ""
    loop.front.note(f"a new conversation{other}")


def title(loop: ChatLoop, rest: str) -> None:
    """Show or set the title."""
    session = loop.desk.session
    if rest:
        with loop.changing():
            session.set_title(" ".join(rest.split()))
        return
    about = f" ({session.id})" if session.id else ""
    loop.front.say(one_line(f"{session.title or '(no title yet)'}{about}"))


def _number(text: str, command: str, default: int) -> int:
    """Return the number that was typed.

    Raises:
        UsageError: it is none.
    """
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UsageError(f"{command} takes a number: {text}")
    return int(text)
