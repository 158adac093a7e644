"""What the commands of a conversation do: about the model, the settings and the screen. The others are beside this."""

from collections.abc import Callable, Mapping
from typing import Any

from owm.cli.chat import branching, files
from owm.cli.chat.desk import short_name
from owm.cli.chat.front import count
from owm.cli.chat.loop import ChatLoop, Leave
from owm.cli.chat.settings import read_value
from owm.cli.terminal import one_line
from owm.errors import UsageError
from owm.settings import keys
from owm.settings.layers import Setting
from owm.units import format_rate, format_seconds

Action = Callable[[ChatLoop, str], None]

_NONE = "none"
_DEFAULT = "default"
_METER_CELLS = 20
# What holds without a value, where that is another thing than for a single answer.
_UNSET = {"ctx_size": "as the conversation needs", "think": "as the model does by itself"}


def show_help(loop: ChatLoop, rest: str) -> None:
    """Show all commands, or one."""
    from owm.cli.chat.commands import find, help_text

    if rest:
        command = find(rest)
        loop.front.say(f"{command.usage}: {command.about}")
        return
    canvas = getattr(loop.front, "canvas", None)
    loop.front.say(help_text(canvas.width() if canvas is not None else 80))


def model(loop: ChatLoop, rest: str) -> None:
    """Show which model answers, or let another one."""
    from owm.cli.fetching import find_or_pull
    from owm.cli.output import Output

    desk = loop.desk
    if not rest:
        where = f", on {desk.placement}" if desk.placement else ""
        loop.front.say(f"{desk.name}{where}")
        return
    stored = find_or_pull(rest, Output(), desk.store)
    if stored.full_name == desk.stored.full_name:
        loop.front.note(f"{desk.name} answers already")
        return
    name = short_name(desk.store, stored)
    with loop.front.waiting(f"loading {name}"):
        desk.switch_model(stored)
    loop.front.note(f"{name} goes on with the conversation")


def system(loop: ChatLoop, rest: str) -> None:
    """Show or set the system prompt."""
    session = loop.desk.session
    if not rest:
        loop.front.say(session.system if session.system is not None else "(no system prompt)")
        return
    with loop.changing():
        session.set_system(None if rest.lower() == _NONE else rest)
    loop.front.note("no system prompt" if session.system is None else "it holds from the next answer on")


def change_settings(loop: ChatLoop, rest: str) -> None:
    """Show or change settings."""
    name, _, text = rest.replace("=", " ", 1).partition(" ")
    text = text.strip()
    _, settings = loop.desk.effective()
    if not name:
        width = max(map(len, settings))
        rows = [f"{key:<{width}}  {_described(key, one)}" for key, one in settings.items()]
        loop.front.say("\n".join(map(one_line, rows)))
        return
    name = keys.find(name)
    if not text:
        loop.front.say(one_line(f"{name}  {_described(name, settings[name])}"))
        return
    if name == "system":
        system(loop, _NONE if text == _DEFAULT else text)
        return
    if name == "gpu_layers":
        raise UsageError("layers stay where they are while the model is open", hint="`owm chat --gpu-layers N`")
    with loop.changing():
        loop.desk.set(name, None if text == _DEFAULT else read_value(name, text))
    setting = loop.desk.effective()[1][name]
    loop.front.note(f"{name} is {_shown(name, setting.value)} from the next answer on")


def think(loop: ChatLoop, rest: str) -> None:
    """Show or change whether the model thinks, how hard, and what is seen of it."""
    desk = loop.desk
    word = rest.lower()
    if not word:
        settings = desk.effective()[1]
        mode, effort = settings["think"].value, settings["effort"].value
        loop.front.say(f"think: {mode or 'as the model does by itself'}, effort: {effort or 'its own'}")
        return
    if word in ("low", "medium", "high"):
        if desk.effective()[1]["think"].value == "off":
            desk.set("think", "on")
        desk.set("effort", word)
        loop.front.note(f"it thinks with {word} effort, if the model knows such levels")
        return
    desk.set("think", read_value("think", word))
    about = {
        "on": "it thinks before it answers, if it can; the thought is one line once the answer begins",
        "off": "it answers without a thought, if it can",
        "show": "thoughts stay on the screen",
        "hide": "thoughts are not shown",
    }
    loop.front.note(about[word])
    last = next((turn for turn in reversed(desk.session.path()) if turn.role == "assistant"), None)
    if word == "show" and last is not None and last.reasoning:
        loop.front.show_thought(last.reasoning)


def stats(loop: ChatLoop, rest: str) -> None:
    """Show how long the last answer took."""
    last = loop.chat().last
    if last is None:
        loop.front.say("nothing was answered since this chat was opened")
        return
    n_read = last.n_prompt - last.n_held
    read_rate = f" at {format_rate(last.prompt_per_second)}" if last.prompt_per_second else ""
    rate = f" at {format_rate(last.decode_per_second)}" if last.decode_per_second else ""
    thought = f", {last.n_reasoning:,} of them thought" if last.n_reasoning else ""
    loop.front.say(
        f"first token after {format_seconds(last.prefill_seconds)}: read {count(n_read, 'token')}{read_rate},"
        f" {last.n_held:,} were there\n"
        f"answer in {format_seconds(last.decode_seconds)}: {count(last.n_generated, 'token')}{rate}{thought}"
    )


def context(loop: ChatLoop, rest: str) -> None:
    """Show what the context holds."""
    from owm.cli.chat.front import first_words
    from owm.cli.chat.toolbar import bar

    use = loop.chat().use()
    why = {"asked": "as asked", "model": "the most of this model", "memory": "the most of this machine"}
    lines = [
        f"{bar(use.n_used, use.n_ctx, _METER_CELLS)} {use.n_used:,} of {use.n_ctx:,} tokens"
        f" ({why.get(use.limited_by, use.limited_by)})",
        f"{use.n_held:,} of them need not be read again",
    ]
    rows = [("system prompt", use.n_system)] if use.n_system else []
    if use.compacted is not None:
        what = "left out" if use.compacted.summary is None else "a summary"
        rows.append((f"up to turn {use.compacted.through}: {what}", 0))
    sides = {"user": "you", "assistant": "model"}
    rows += [(f"{sides.get(turn.role, turn.role)}: {first_words(turn.words, 40)}", n) for turn, n in use.turns]
    lines += [f"{n:>9,}  {one_line(about)}" if n else f"{'':>9}  {one_line(about)}" for about, n in rows]
    loop.front.say("\n".join(lines))


def compact(loop: ChatLoop, rest: str) -> None:
    """Let a summary stand for the oldest turns."""
    if loop.compact():
        compaction, _ = loop.desk.session.condensed()
        if compaction is not None and compaction.summary:
            loop.front.show_thought(compaction.summary)


def raw(loop: ChatLoop, rest: str) -> None:
    """Show answers as they are written, or rendered."""
    manner = loop.front.manner
    wanted = _switch(rest, "/raw")
    manner.is_raw = not manner.is_raw if wanted is None else wanted
    loop.front.note("answers as the model writes them" if manner.is_raw else "answers as rendered Markdown")


def multi(loop: ChatLoop, rest: str) -> None:
    """Let Enter begin a new line."""
    is_multi = loop.front.set_multi(_switch(rest, "/multi"))
    if is_multi is None:
        raise UsageError("lines are sent one by one here", hint='what begins with `"""` goes on to a closing `"""`')
    loop.front.note("Enter begins a new line, Alt-Enter sends" if is_multi else "Enter sends")


def clear(loop: ChatLoop, rest: str) -> None:
    """Clear the screen."""
    loop.front.clear()


def leave(loop: ChatLoop, rest: str) -> None:
    """Leave."""
    raise Leave


ACTIONS: Mapping[str, Action] = {
    "undo": branching.undo,
    "retry": branching.retry,
    "edit": branching.edit,
    "alt": branching.alternatives,
    "new": branching.begin_anew,
    "title": branching.title,
    "fork": branching.fork,
    "branches": branching.branches,
    "switch": branching.switch,
    "file": files.attach_files,
    "paste": files.paste,
    "copy": files.copy,
    "save-code": files.save_code,
    "export": files.export,
    "model": model,
    "system": system,
    "set": change_settings,
    "think": think,
    "stats": stats,
    "context": context,
    "compact": compact,
    "raw": raw,
    "multi": multi,
    "clear": clear,
    "help": show_help,
    "quit": leave,
}


def _described(name: str, setting: Setting) -> str:
    origin = "" if setting.origin == "default" else f"  ({setting.origin})"
    return _shown(name, setting.value) + origin


def _shown(name: str, value: Any) -> str:
    if value is None:
        if name in _UNSET:
            return _UNSET[name]
        return keys.KEYS[name].unset if name in keys.KEYS else "none"
    return str(value)


def _switch(text: str, command: str) -> bool | None:
    """Return what `on`, `off` or nothing says.

    Raises:
        UsageError: it is something else.
    """
    if text.lower() not in ("", "on", "off"):
        raise UsageError(f"{command} takes on or off: {text}")
    return None if not text else text.lower() == "on"
