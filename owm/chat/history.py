"""What the model reads of a conversation: the system prompt, a summary of what is no longer read, and the turns."""

from collections.abc import Sequence

from owm.chat.conversation import Compaction
from owm.chat.turn import Turn
from owm.engine.template import Message

# Before the first message and not in the system prompt: every chat template takes it there, and one that has a system
# prompt of its own keeps that.
_SUMMARY = "This is what was said in our conversation before, in short:\n\n{summary}\n\n---\n\n{content}"


def messages(
    system: str | None, compaction: Compaction | None, turns: Sequence[Turn], content: str | None = None
) -> list[Message]:
    """Return the messages that a chat template renders.

    A summary is put before the first message after it; one that was dropped instead leaves nothing.

    Args:
        turns: those after the compaction; of the model's own only what it answered, not what it thought.
        content: what is said next.
    """
    said = [(turn.role, turn.content) for turn in turns]
    if content is not None:
        said.append(("user", content))
    summary = compaction.summary if compaction is not None else None
    if summary is not None:
        place = next((place for place, (role, _) in enumerate(said) if role == "user"), None)
        if place is None:
            said.append(("user", _SUMMARY.format(summary=summary, content="").rstrip()))
        else:
            said[place] = ("user", _SUMMARY.format(summary=summary, content=said[place][1]))
    first: list[Message] = [{"role": "system", "content": system}] if system else []
    return first + [{"role": role, "content": text} for role, text in said]


def exchanges(turns: Sequence[Turn]) -> list[list[Turn]]:
    """Cut turns into exchanges: what a person said, and all that follows it."""
    found: list[list[Turn]] = []
    for turn in turns:
        if turn.role == "user" or not found:
            found.append([])
        found[-1].append(turn)
    return found


def answered(turns: Sequence[Turn]) -> list[Turn]:
    """Return the turns without those at the end that nobody has answered."""
    n = len(turns)
    while n and turns[n - 1].role == "user":
        n -= 1
    return list(turns[:n])
