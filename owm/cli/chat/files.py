"""What the commands do that bring files and the clipboard in, and answers out."""

import os
import shlex
from pathlib import Path

from owm.cli.chat import clipboard
from owm.cli.chat.front import count
from owm.cli.chat.loop import ChatLoop, last_answer
from owm.engine import material
from owm.engine.extract import CodeBlock, code_blocks
from owm.engine.material import Piece
from owm.errors import NotFound, StoreError, UsageError
from owm.publishing import save_text

CLIPBOARD = "clipboard"


def attach_files(loop: ChatLoop, rest: str) -> None:
    """Let files go with the next prompt."""
    if not rest:
        names = ", ".join(piece.name for piece in loop.waiting)
        loop.front.say(f"with the next prompt: {names}" if names else "no files wait for the next prompt")
        return
    if rest == "none":
        loop.waiting.clear()
        loop.front.note("no files wait for the next prompt")
        return
    for path in _paths(rest):
        if (there := Path(os.path.expanduser(path))).exists() and not (there.is_file() or there.is_dir()):
            raise UsageError(f"{path} is no file")  # a named pipe would be waited for
        piece = material.read_file(path)
        for note in piece.notes:
            loop.front.note(note)
        _wait(loop, piece)


def paste(loop: ChatLoop, rest: str) -> None:
    """Let what is on the clipboard go with the next prompt."""
    text = clipboard.paste()
    if not text.strip():
        raise UsageError("the clipboard is empty")
    _wait(loop, Piece(CLIPBOARD, text.removesuffix("\n")))


def copy(loop: ChatLoop, rest: str) -> None:
    """Copy the last answer, or a code block of it."""
    if rest not in ("", "code"):
        raise UsageError(f"/copy takes nothing or `code`: {rest}")
    # Without its last line end: pasted into a shell, it should not run by itself.
    text = _blocks(loop)[-1].text.removesuffix("\n") if rest else last_answer(loop)
    by = clipboard.copy(text)
    loop.front.note(f"copied {count(len(text), 'character')} through {by}")


def save_code(loop: ChatLoop, rest: str) -> None:
    """Write a code block of the last answer to a file: `FILE`, or `FILE N` for the Nth."""
    words = _paths(rest)
    if not words:
        raise UsageError("/save-code needs a file", hint="`/save-code FILE`, or `/save-code FILE N` for the Nth block")
    if len(words) > 2 or (len(words) == 2 and not _is_number(words[1])):
        raise UsageError(f"/save-code takes a file and a number: {rest}", hint="a path with blanks goes in quotes")
    blocks = _blocks(loop)
    number = int(words[1]) if len(words) == 2 else 1
    if not 1 <= number <= len(blocks):
        raise UsageError(f"the answer has {count(len(blocks), 'code block')}", hint=f"`/save-code {words[0]} 1`")
    block = blocks[number - 1]
    if not _write(loop, words[0], block.text):
        return
    if len(blocks) > 1 and len(words) == 1:
        loop.front.note(f"it is the first of {len(blocks)} code blocks; `/save-code FILE N` takes another")
    if not block.is_closed:
        loop.front.note("the code block is not closed, it goes to the end of the answer")


def export(loop: ChatLoop, rest: str) -> None:
    """Write this branch to a file, in the form that its ending names; without one, show it as Markdown."""
    import json

    from owm.chat import export as forms

    session = loop.desk.session
    if not session.path():
        raise UsageError("there is nothing to export yet")
    if not rest:
        loop.front.say(forms.as_markdown(session))
        return
    words = _paths(rest)
    if len(words) != 1:
        raise UsageError(f"/export takes one file: {rest}", hint="a path with blanks goes in quotes")
    ending = Path(words[0]).suffix.lower().lstrip(".")
    if ending not in ("md", "markdown", "json", "html", "htm"):
        raise UsageError(f"{words[0]} does not end in .md, .json or .html", hint=f"`/export {words[0]}.md`")
    if ending == "json":
        text = json.dumps(forms.as_json(session), ensure_ascii=False, indent=2) + "\n"
        text = text.encode("utf-8", "backslashreplace").decode()
    else:
        text = forms.as_html(session) if ending.startswith("htm") else forms.as_markdown(session)
    _write(loop, words[0], text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _blocks(loop: ChatLoop) -> list[CodeBlock]:
    blocks = list(code_blocks(last_answer(loop)))
    if not blocks:
        raise NotFound("the last answer has no fenced code block")
    return blocks


def _wait(loop: ChatLoop, piece: Piece) -> None:
    loop.waiting = [*(each for each in loop.waiting if each.name != piece.name), piece]
    n_lines = piece.text.count("\n") + 1
    loop.front.note(f"{piece.name} ({count(n_lines, 'line')}) goes with the next prompt")


def _paths(text: str) -> list[str]:
    """Cut what was typed into paths, as a shell would."""
    try:
        return shlex.split(text)
    except ValueError:
        raise UsageError(f"a quote is not closed: {text}") from None


def _write(loop: ChatLoop, name: str, text: str) -> bool:
    """Write a file; over one that is there only if the person agrees."""
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        raise UsageError(f"{name} is a folder")
    if path.exists():
        if not loop.front.can_ask:
            raise UsageError(f"{name} is there already", hint="choose another name")
        if loop.front.choose(f"{name} is there already:", {"y": "write over it", "n": "leave it"}) != "y":
            loop.front.note("nothing was written")
            return False
    try:
        save_text(path, text.encode("utf-8", "replace").decode())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StoreError(f"cannot write {name}: {reason}", hint="choose another file") from error
    loop.front.note(f"wrote {name}")
    return True
