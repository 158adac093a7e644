"""`owm chat`: a conversation in the terminal, or in lines."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from owm.cli import options as o
from owm.cli.chat import options as c
from owm.cli.output import Output
from owm.errors import OwmError, UsageError

if TYPE_CHECKING:
    from owm.chat.session import Session
    from owm.chat.sessions import Sessions
    from owm.cli.chat.desk import Desk
    from owm.cli.chat.front import Front
    from owm.cli.chat.toolbar import Status
    from owm.store.local import Store
    from owm.store.model import StoredModel

HISTORY = "chat-history"


def command(
    model: c.ChatModelArg = None,
    continues: c.ContinueOpt = False,
    session: c.SessionOpt = None,
    private: c.PrivateOpt = False,
    system: o.SystemOpt = None,
    file: c.ChatFileOpt = None,
    overflow: c.ChatOverflowOpt = None,
    max_tokens: o.MaxTokensOpt = None,
    stop: o.StopOpt = None,
    think: c.ChatThinkOpt = None,
    effort: o.EffortOpt = None,
    think_budget: o.ThinkBudgetOpt = None,
    temp: o.TempOpt = None,
    top_k: o.TopKOpt = None,
    top_p: o.TopPOpt = None,
    min_p: o.MinPOpt = None,
    repeat_penalty: o.RepeatPenaltyOpt = None,
    seed: o.SeedOpt = None,
    lora: o.RunLoraOpt = None,
    ctx_size: o.CtxSizeOpt = None,
    threads: o.ThreadsOpt = None,
    gpu_layers: o.GpuLayersOpt = None,
    trust: o.TrustOpt = False,
    raw: c.ChatRawOpt = False,
    plain: c.PlainOpt = False,
    json: c.ChatJsonOpt = False,
    offline: o.OfflineOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> int:
    """Talk with a model; everything is kept as it is said, and `--continue` goes on at once.

    In the conversation, `/help` lists the commands. Where stdin or stdout is no terminal, each line of stdin is a turn.
    """
    from owm.cli.asking import text_of
    from owm.cli.chat.desk import Desk, Wanted
    from owm.cli.chat.settings import OVERFLOWS, THINKS
    from owm.engine import material
    from owm.engine.adapter import read_adapter
    from owm.library import open_store
    from owm.settings import config, keys, layers

    out = Output(False, quiet, verbose)
    flags: dict[str, Any] = {
        "temp": temp,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repeat_penalty": repeat_penalty,
        "seed": seed,
        "ctx_size": ctx_size,
        "max_tokens": max_tokens,
        "threads": threads,
        "gpu_layers": gpu_layers,
        "effort": effort,
    }
    keys.check_flags(flags)
    for name, value, choices in (("think", think, THINKS), ("overflow", overflow, OVERFLOWS)):
        if value is not None:
            keys.Key(str, "", choices=choices).check(value, f"--{name}")
        flags[name] = value
    layers.environment()
    config.load(config.default_path())
    if any(not text for text in stop or ()):
        raise UsageError("--stop needs a text", hint="an empty text would stop everything")
    if think == "off" and (effort is not None or think_budget is not None):
        raise UsageError("--think off leaves no thought for --effort or --think-budget")
    wanted = Wanted(
        {name: value for name, value in flags.items() if value is not None},
        tuple(read_adapter(text) for text in lora or ()),
        tuple(text_of(text, "--stop") for text in stop or ()),
        think_budget,
        private,
    )
    pieces = [material.read_file(path) for path in file or ()]
    store = open_store()
    is_plain = plain or json or not _is_screen()
    with ExitStack() as stack:
        stack.enter_context(ended_by_signals())
        if not is_plain:
            from owm.cli.chat.terminal import kept_terminal, quiet_typing

            stack.enter_context(kept_terminal())
            # What is typed while the editor is not open is shown by the editor, and only there.
            stack.enter_context(quiet_typing())
        sessions, opened = _open_session(session, continues=continues, is_private=private)
        stack.enter_context(opened)
        if opened.damage is not None:
            out.warn(opened.damage)
        stored = _find_model(model, opened, sessions, store, out)
        desk = Desk(wanted, store, opened, stored, out)
        if system is not None:
            opened.set_system(text_of(system, "--system") or None)
        elif not opened.turns and opened.system is None:
            opened.set_system(desk.effective()[1]["system"].value)
        talk = _Talk(desk, sessions, out, is_raw=raw, as_json=json, pieces=pieces)
        return talk.in_lines() if is_plain else talk.on_screen()


@dataclass(slots=True)
class _Talk:
    """A conversation from its first prompt to what is said when it is left."""

    desk: "Desk"
    sessions: "Sessions | None"
    out: Output
    is_raw: bool = False
    as_json: bool = False
    pieces: list[Any] = field(default_factory=list)

    def in_lines(self) -> int:
        """Hold it in lines; return the exit code."""
        from owm.cli.chat.answer import Manner
        from owm.cli.chat.plain import PlainFront

        front = PlainFront(Manner(is_raw=True), as_json=self.as_json, is_quiet=self.out.quiet)
        with self._left(front):
            self.desk.chat  # noqa: B018 - a model that cannot be opened is no conversation
            self._run(front)
        return int(front.exit_code) if not front.can_ask else 0

    def on_screen(self) -> int:
        """Hold it on the terminal; return the exit code."""
        from owm import paths
        from owm.cli.chat.answer import Manner
        from owm.cli.chat.canvas import canvas_of_terminal
        from owm.cli.chat.completion import Facts
        from owm.cli.chat.editor import Editor
        from owm.cli.chat.screen import ScreenFront

        desk, canvas = self.desk, canvas_of_terminal()
        is_private = desk.wanted.is_private
        editor = Editor(
            Facts(
                model_names=lambda: _model_names(desk.store),
                branch_names=lambda: [each.name or str(each.number) for each in desk.session.branches()],
                settings=_settings,
            ),
            history=None if is_private else paths.owm_home() / HISTORY,
            status=lambda: _status(desk),
            look=canvas.look,
        )
        front = ScreenFront(editor, canvas, Manner(is_raw=self.is_raw), is_quiet=self.out.quiet)
        with self._left(front):
            if self.out.verbose:  # llama.cpp's log would be written over the editor
                try:
                    self.desk.chat  # noqa: B018
                except OwmError as error:
                    front.problem(error)
            else:

                def told(problem: BaseException | None) -> None:
                    if problem is not None:
                        editor.note(_told(problem, canvas.width()))
                    editor.refresh()
                    if problem is None:
                        _warm_up()

                desk.tell_through(editor.note)
                desk.load(told)
            canvas.write("\r\x1b[K")  # what was typed before owm ran has been shown by the terminal; the editor has it
            self._run(front)
        return 0

    def _run(self, front: "Front") -> None:
        from owm.cli.chat.loop import ChatLoop

        if self.desk.session.turns:
            front.show_past(self.desk.session)
        ChatLoop(self.desk, front, self.sessions, waiting=self.pieces, is_verbose=self.out.verbose).run()

    @contextmanager
    def _left(self, front: "Front") -> "Iterator[None]":
        """Keep what is to be kept, however the body ends, and say how to go on."""
        ending: BaseException | None = None
        try:
            yield
        except BaseException as error:
            ending = error
            raise
        finally:
            self._leave(front, ending)

    def _leave(self, front: "Front", ending: BaseException | None) -> None:
        desk = self.desk
        session = desk.session
        has_turns = bool(session.turns)
        is_quick = ending is not None and not isinstance(ending, _HungUp)
        if desk.is_loading:  # inside llama.cpp, where it cannot be stopped
            session.close()
            self._say_how_to_return(session, has_turns)
            _end_now(ending)
        desk.tell_through(None)
        if has_turns and not is_quick:
            with suppress(KeyboardInterrupt, OSError, OwmError), front.waiting("keeping the conversation"):
                desk.keep()
        try:
            session.close()
        finally:
            desk.close_model()
        if not isinstance(ending, OwmError):
            self._say_how_to_return(session, has_turns)

    def _say_how_to_return(self, session: "Session", has_turns: bool) -> None:
        if has_turns and self.sessions is not None:
            self.out.note(f"kept as {session.id}; `owm chat --continue` goes on with it")


class _HungUp(SystemExit):
    """The terminal has gone."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let the signals that end programs end this one in order."""

    def end(number: int, _frame: object) -> None:
        is_gone = number == getattr(signal, "SIGHUP", None)
        raise (_HungUp if is_gone else SystemExit)(128 + number)

    before: dict[int, Callable[..., Any] | int | None] = {}
    for name in ("SIGTERM", "SIGHUP"):
        if (number := getattr(signal, name, None)) is not None and signal.getsignal(number) is signal.SIG_DFL:
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_now(ending: BaseException | None) -> None:
    import atexit

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    code = ending.code if isinstance(ending, SystemExit) and isinstance(ending.code, int) else 0
    os._exit(130 if isinstance(ending, KeyboardInterrupt) else code)


def _is_screen() -> bool:
    """Tell whether there is a terminal that an editor can be drawn on."""
    from owm.cli.terminal import is_terminal

    is_dumb = os.environ.get("TERM", "") in ("", "dumb", "unknown")
    return is_terminal(sys.stdin) and is_terminal(sys.stdout) and not is_dumb


def _open_session(name: str | None, *, continues: bool, is_private: bool) -> "tuple[Sessions | None, Session]":
    """Begin a session, or go on with one.

    Raises:
        UsageError: flags contradict each other.
        NotFound: there is none such.
        StoreError: it cannot be opened.
    """
    from owm.chat.session import Session
    from owm.chat.sessions import open_sessions
    from owm.errors import NotFound

    sessions = open_sessions()
    if name is not None and continues:
        raise UsageError("--continue and --session are two conversations", hint="give one of them")
    if is_private:
        if name is not None or continues:
            raise UsageError("--private keeps nothing, so it goes on with nothing", hint="leave one of them out")
        return None, Session.private()
    if name is not None:
        return sessions, Session.open(sessions.find(name))
    if continues:
        if (path := sessions.latest()) is None:
            raise NotFound("there is no conversation to go on with", hint="`owm chat` begins one")
        return sessions, Session.open(path)
    return sessions, sessions.create()


def _find_model(
    name: str | None, session: "Session", sessions: "Sessions | None", store: "Store", out: Output
) -> "StoredModel":
    """Return the model that is named, that of the session, or the last one used.

    Raises:
        UsageError: there is none.
    """
    from owm.chat.session import Session as AnySession
    from owm.cli.chat.desk import last_used
    from owm.cli.fetching import find_or_pull

    if (name := name or session.model) is not None:
        return find_or_pull(name, out, store)
    names = []
    with suppress(OwmError):
        if sessions is not None and (path := sessions.latest()) is not None:
            names = [model for model in [AnySession.read(path).model] if model is not None]
    if (stored := last_used(store, names)) is None:
        raise UsageError("no model was used yet", hint="`owm chat smollm2` fetches a small one")
    store.touch(stored)
    return stored


def _model_names(store: "Store") -> list[str]:
    models = store.models()
    return sorted({*(store.shown_name(model, models) for model in models), *store.aliases.load()})


def _settings() -> dict[str, Any]:
    from owm.cli.chat.completion import known_settings
    from owm.cli.chat.settings import OVERFLOWS, THINKS

    return {**known_settings(), "think": (*THINKS, "default"), "overflow": (*OVERFLOWS, "default")}


def _status(desk: "Desk") -> "Status":
    from owm.cli.chat.toolbar import Status

    if desk.is_loading or (chat := desk.opened) is None:
        return Status(desk.name, "loading" if desk.is_loading else "not open")
    branches = desk.session.branches() if len(desk.session.turns) else []
    branch = next((each.name or str(each.number) for each in branches if each.is_current), None)
    rate = chat.last.decode_per_second if chat.last is not None else None
    return Status(desk.name, None, desk.n_used(), chat.n_ctx, rate, branch, max(len(branches), 1))


def _told(problem: BaseException, width: int) -> str:
    """Return an error and its hint in lines that fit."""
    import textwrap

    from owm.cli.terminal import one_line

    hint = problem.hint if isinstance(problem, OwmError) else None
    said = [f"error: {problem}", *([f"hint: {hint}"] if hint else [])]
    return "\n".join(line for each in said for line in textwrap.wrap(one_line(each), width))


def _warm_up() -> None:
    from owm.cli.markdown.stream import warm_up

    warm_up()
