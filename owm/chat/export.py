"""A branch of a session for other programs: Markdown, JSON (`owm run --messages` reads it), and a page of HTML.

The page stands alone: it loads nothing, runs nothing, and what a model has written cannot become more than text, links
and tables in it.
"""

import re
from html import escape
from pathlib import PurePath
from typing import Any, Literal, get_args

from owm.chat.session import Session
from owm.chat.turn import Turn, written_time

Format = Literal["md", "json", "html"]
FORMATS: tuple[str, ...] = get_args(Format)

_NO_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_STYLE = """
body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; }
header p, h2 span { color: #767676; font-weight: normal; font-size: .85rem; }
h2 { font-size: 1rem; margin: 2rem 0 .3rem; }
.typed, details div { white-space: pre-wrap; overflow-wrap: anywhere; }
.typed { background: #8881; border-radius: .5rem; padding: .5rem .8rem; }
details { color: #767676; }
pre { background: #8881; padding: .6rem .8rem; overflow-x: auto; }
table { border-collapse: collapse; } td, th { border: 1px solid #8886; padding: .2rem .5rem; }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd; } a { color: #8bf; } }
"""
_PAGE = """<!DOCTYPE html>
<html>
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1 dir="auto">{title}</h1>
<p>{about}</p>
</header>
{turns}
</body>
</html>
"""


def as_json(session: Session, end: int | None = None) -> dict[str, Any]:
    """Return the branch that ends with a turn (by default the head) as an object with `messages`."""
    messages: list[dict[str, Any]] = []
    if session.system is not None:
        messages.append({"role": "system", "content": session.system})
    for turn in session.path(end):
        message: dict[str, Any] = {"role": turn.role, "content": turn.content}
        if turn.reasoning:
            message["reasoning_content"] = turn.reasoning
        if turn.model is not None:
            message["model"] = turn.model
        if turn.attachments:
            message["attachments"] = list(turn.attachments)
        messages.append({**message, "at": written_time(turn.at)})
    return {
        "id": session.id,
        "title": session.title,
        "model": session.model,
        "model_sha256": session.model_sha256,
        "created": written_time(session.created),
        "messages": messages,
    }


def as_markdown(session: Session, end: int | None = None) -> str:
    """Return the branch that ends with a turn (by default the head) as Markdown."""
    parts = [f"# {_heading(session)}", f"*{_about(session)}*"]
    if session.system is not None:
        parts += ["## System prompt", session.system]
    for turn in session.path(end):
        parts.append(f"## {_who(turn)}")
        if turn.attachments:
            parts.append("Attached: " + ", ".join(turn.attachments))
        if turn.reasoning:
            parts.append(f"<details><summary>Thought</summary>\n\n{turn.reasoning.strip()}\n\n</details>")
        parts.append(turn.words.strip("\n"))
    return _text("\n\n".join(parts) + "\n")


def as_html(session: Session, end: int | None = None) -> str:
    """Return the branch that ends with a turn (by default the head) as a page that needs nothing else."""
    from markdown_it import MarkdownIt

    # No HTML of the model's own, and no images: those would be loaded from somewhere.
    markdown = MarkdownIt("js-default", {"html": False, "linkify": False}).disable("image")
    turns = []
    if session.system is not None:
        turns.append(f'<h2>System prompt</h2>\n<div class="typed" dir="auto">{_escaped(session.system)}</div>')
    for turn in session.path(end):
        at = turn.at.strftime("%Y-%m-%d %H:%M UTC")
        parts = [f"<h2>{_escaped(_who(turn))} <span>{at}</span></h2>"]
        if turn.attachments:
            parts.append(f"<p>Attached: {_escaped(', '.join(turn.attachments))}</p>")
        if turn.reasoning:
            thought = _escaped(turn.reasoning.strip())
            parts.append(f'<details><summary>Thought</summary><div dir="auto">{thought}</div></details>')
        if turn.role == "assistant":
            parts.append(f'<div dir="auto">{markdown.render(_text(turn.content))}</div>')
        else:
            parts.append(f'<div class="typed" dir="auto">{_escaped(turn.words)}</div>')
        turns.append("\n".join(parts))
    title, about = _escaped(_heading(session)), _escaped(_about(session))
    return _PAGE.format(title=title, style=_STYLE, about=about, turns="\n".join(turns))


def _heading(session: Session) -> str:
    return re.sub(r"\s+", " ", session.title or session.id)


def _about(session: Session) -> str:
    begun = session.created.strftime("%Y-%m-%d %H:%M UTC")
    return ", ".join(filter(None, (_model(session.model), f"begun {begun}", f"session {session.id}")))


def _model(name: str | None) -> str | None:
    """Return what a model is called; of a file that was named by its path, not its folders."""
    if name is None:
        return None
    return re.sub(r"\s+", " ", PurePath(name).name if name.endswith(".gguf") else name)


def _who(turn: Turn) -> str:
    if turn.role == "assistant":
        return _model(turn.model) or "Model"
    return "You" if turn.role == "user" else "System"


def _text(text: str) -> str:
    """Replace what is no text: control characters, and half characters, which no file can hold."""
    return _NO_TEXT.sub("\ufffd", text)


def _escaped(text: str) -> str:
    return escape(_text(text))
