"""What a conversation needs open: its session, the model that answers, and what holds for answers now.

The model is loaded in a thread, so that a prompt can be typed meanwhile.
"""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from owm.cli.chat.settings import MACHINE, usable
from owm.cli.output import Output
from owm.errors import OwmError
from owm.events import Event, Warned
from owm.settings import keys
from owm.settings.layers import Setting

if TYPE_CHECKING:
    from owm.chat.session import Session
    from owm.engine.adapter import AdapterChoice
    from owm.engine.model import Model
    from owm.library.chatting import Chat, Overflow, Terms
    from owm.store.local import Store
    from owm.store.model import StoredModel

IDLE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line says of all answers; of the settings only those that were given."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    adapters: "Sequence[AdapterChoice]" = ()
    stops: tuple[str, ...] = ()
    think_budget: int | None = None
    is_private: bool = False


@dataclass(frozen=True, slots=True)
class _Told(Output):
    """Says everything through one function."""

    tell: Callable[[str], None] = lambda message: None

    def note(self, message: str) -> None:
        if not self.quiet:
            self.tell(message)

    def warn(self, message: str) -> None:
        self.tell(f"warning: {message}")


class Desk:
    """A session with an open model. For one thread; what is loading or being kept is waited for where it matters."""

    def __init__(self, wanted: Wanted, store: "Store", session: "Session", stored: "StoredModel", out: Output) -> None:
        self.session = session
        self.stored = stored
        self.wanted = wanted
        self.store = store
        self.name = short_name(store, stored)
        self._own: dict[str, Any] = usable(session.settings)  # set in the conversation, and kept with it
        self._flags: dict[str, Any] = dict(wanted.settings)  # for as long as nothing else is set in its place
        self._out = out
        self._told: Output | None = None
        self._model: Model | None = None
        self._chat: Chat | None = None
        self._of_model, self._of_chat = ExitStack(), ExitStack()
        self._problem: BaseException | None = None
        self._before: StoredModel | None = None  # a model that answered until this one was to
        self._loading: threading.Thread | None = None
        self._has_loaded = threading.Event()
        self._keeping: threading.Thread | None = None
        self._use: tuple[Any, int] | None = None

    # -- opening ---------------------------------------------------------------------------------------------------

    def load(self, told: Callable[[BaseException | None], None] = lambda problem: None) -> None:
        """Begin to open the model; `told` is called in the loading thread when that is done."""

        def work() -> None:
            try:
                if self._model is None:
                    self._open_model(self.stored)
                self._open_chat()
            except BaseException as error:
                self._problem = error
            self._has_loaded.set()
            told(self._problem)

        self._has_loaded.clear()
        self._loading = threading.Thread(target=work, name="owm-open", daemon=True)
        self._loading.start()

    @property
    def is_loading(self) -> bool:
        """The model is being opened."""
        return self._loading is not None and not self._has_loaded.is_set()

    @property
    def chat(self) -> "Chat":
        """The open chat, which is waited for.

        Raises:
            OwmError: the model cannot be opened; it is tried again the next time, after a switch with the one before.
            KeyboardInterrupt: Ctrl-C, while it was waited for; loading goes on.
        """
        if self._chat is None and self._problem is None and not self.is_loading:
            self.load()
        while self.is_loading:
            self._has_loaded.wait(0.1)
        self._loading = None
        if self._problem is not None:
            problem, self._problem = self._problem, None
            self.close_model()
            if self._before is not None:
                self._take(self._before)
            raise problem
        assert self._chat is not None
        self._before = None
        return self._chat

    @property
    def opened(self) -> "Chat | None":
        """The chat, if it is open."""
        return None if self.is_loading else self._chat

    @property
    def placement(self) -> str:
        """Where the model computes, in words."""
        return self._model.placement if self._model is not None else ""

    def switch_model(self, stored: "StoredModel") -> None:
        """Let another model answer; the conversation stays. If it cannot be opened, the old one will answer.

        Raises:
            OwmError: it cannot be opened.
        """
        before = self.stored
        self.close_model()
        self._take(stored)
        self._before = before
        self.chat  # noqa: B018 - waited for

    def begin_anew(self, session: "Session") -> None:
        """Go on with another session and the same model; the one before is closed.

        Raises:
            OwmError: the last changes of the old one are lost.
        """
        self.wait_for_keeping()
        self._close_chat()
        old, self.session = self.session, session
        session.set_settings(self._lasting())
        old.close()

    def close_model(self) -> None:
        """Close what is open of the model; the session stays."""
        self.wait_for_keeping()
        self._close_chat()
        self._model = None
        stack, self._of_model = self._of_model, ExitStack()
        stack.close()

    def _take(self, stored: "StoredModel") -> None:
        self.stored, self.name, self._before = stored, short_name(self.store, stored), None

    def _close_chat(self) -> None:
        self._chat, self._use = None, None
        stack, self._of_chat = self._of_chat, ExitStack()
        stack.close()

    def _open_model(self, stored: "StoredModel") -> None:
        from owm.cli.opening import open_model
        from owm.library.configuring import said_tuned, tuned_for

        _, settings = self.effective()
        note = (self._told or self._out).note
        tuned_for(stored, note=note)
        if self._out.verbose and (said := said_tuned(settings)):
            note(said)
        with ExitStack() as stack:
            gpu_layers = settings["gpu_layers"].value
            model = stack.enter_context(
                open_model(stored, self._told or self._out, gpu_layers=gpu_layers, adapters=self.wanted.adapters)
            )
            model.check_makes_text()
            self._model, self._of_model = model, stack.pop_all()

    def _open_chat(self) -> None:
        from owm.library.chatting import open_chat
        from owm.store.digest import sha256_of as file_digest

        assert self._model is not None
        with ExitStack() as stack:
            chat = stack.enter_context(
                open_chat(
                    self.session,
                    self._model,
                    self.terms(),
                    model_name=self.stored.full_name,
                    model_sha256=sha256_of(self.stored),
                    keeps=not self.wanted.is_private,
                    adapters=[(file_digest(choice.path), choice.scale) for choice in self.wanted.adapters],
                    sink=self._hear,
                )
            )
            self._chat, self._of_chat = chat, stack.pop_all()

    def tell_through(self, tell: Callable[[str], None] | None) -> None:
        """Say what is to be said through this, where a line on stderr would be in the way of an editor."""
        self._told = None if tell is None else _Told(self._out.as_json, self._out.quiet, False, tell)

    def _hear(self, event: Event) -> None:
        if isinstance(event, Warned):
            (self._told or self._out).warn(event.message)

    # -- settings --------------------------------------------------------------------------------------------------

    def effective(self) -> tuple[Any, dict[str, Setting]]:
        """Return sampling and all settings with their origins; before the model is open, without what its file says."""
        from owm.library.configuring import effective

        values = {**self._own, **self._flags}
        flags = {name: value for name, value in values.items() if name in keys.KEYS and name != "think"}
        header = self._model.header if self._model is not None else None
        family = None
        if header is not None:
            from owm.engine.family import sampling_defaults

            family = sampling_defaults(header)
        sampling, settings = effective(self.stored, self.store, flags, header=header, family=family)
        if settings["overflow"].value is None:
            settings["overflow"] = Setting("ask", "default")
        for origin, given in (("this conversation", self._own), ("--{}", self._flags)):
            for name, value in given.items():
                settings[name] = Setting(value, origin.format(name.replace("_", "-")))
        settings.pop("ignore_eos", None)
        if self.session.system is not None:
            settings["system"] = Setting(self.session.system, "this conversation")
        return sampling, settings

    def terms(self) -> "Terms":
        """Return what holds for answers now.

        Raises:
            UsageError: settings contradict each other.
        """
        from owm.engine.template import Thinking
        from owm.engine.wishes import Wishes
        from owm.library.chatting import Terms
        from owm.library.configuring import tuning_of

        sampling, settings = self.effective()
        value = {name: setting.value for name, setting in settings.items()}
        think = value["think"]
        mode: Any = {"on": "on", "show": "on", "only": "on", "off": "off"}.get(think, "auto")
        wishes = Wishes(
            sampling=sampling,
            max_tokens=value["max_tokens"],
            n_ctx=value["ctx_size"],
            n_threads=value["threads"],
            tuning=tuning_of(value),
            stops=self.wanted.stops,
            thinking=Thinking(mode, None if mode == "off" else value["effort"]),
            think_budget=None if mode == "off" else self.wanted.think_budget,
        )
        return Terms(wishes, cast("Overflow", value["overflow"]))

    @property
    def thoughts(self) -> str:
        """How thoughts are shown: `live`, `show` or `hide`."""
        think = self.effective()[1]["think"].value
        return str(think) if think in ("show", "hide") else "live"

    def set(self, name: str, value: Any) -> None:
        """Set a value for this conversation, None to go back to what holds for all.

        Raises:
            UsageError: it cannot be; then nothing has changed.
        """
        before = dict(self._own), dict(self._flags)
        self._own.pop(name, None)
        self._flags.pop(name, None)
        if value is not None:
            self._own[name] = value
        try:
            terms = self.terms()
            if (chat := self.opened) is not None:
                self.wait_for_keeping()
                chat.set(terms)
        except BaseException:
            self._own, self._flags = before
            raise
        self.session.set_settings(self._lasting())

    def _lasting(self) -> dict[str, Any]:
        return {name: value for name, value in self._own.items() if name not in MACHINE}

    # -- keeping ---------------------------------------------------------------------------------------------------

    def keep_when_idle(self) -> Callable[[], None]:
        """Keep the conversation once nothing has happened for a while; return what ends the waiting for that."""
        if self.wanted.is_private or self.opened is None or not self.session.turns:
            return lambda: None
        timer = threading.Timer(IDLE_SECONDS, self.keep)
        timer.name, timer.daemon = "owm-keep", True
        timer.start()
        self._keeping = timer

        def stop() -> None:
            timer.cancel()
            self.wait_for_keeping()

        return stop

    def keep(self) -> None:
        """Write what the model has read of the conversation; where that fails, it is read anew the next time."""
        if (chat := self.opened) is not None and not self.wanted.is_private:
            with suppress(OwmError, OSError):
                chat.keep()

    def wait_for_keeping(self) -> None:
        """Wait until nothing is being written of the conversation."""
        if self._keeping is not None:
            self._keeping.join()
            self._keeping = None

    def n_used(self) -> int | None:
        """Return how many tokens of the context the conversation takes; None if that is not known."""
        if (chat := self.opened) is None:
            return None
        compaction, _ = self.session.condensed()
        at = (id(chat), self.session.head, self.session.system, compaction)
        if self._use is None or self._use[0] != at:
            try:
                self._use = (at, chat.room().n_prompt)
            except OwmError:
                return None
        return self._use[1]


def short_name(store: "Store", stored: "StoredModel") -> str:
    """Return what people know a model by; of a mere file, not its folders."""
    return store.shown_name(stored) if stored.manifest is not None else stored.path.name


def sha256_of(stored: "StoredModel") -> str | None:
    """Return what names the bytes of a stored model, None for a mere path."""
    if stored.manifest is None:
        return None
    digests = [record.sha256 for record in stored.manifest.files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def last_used(store: "Store", among: Sequence[str]) -> "StoredModel | None":
    """Return the first stored model of some names, else the one that was used last; None if nothing is stored."""
    from owm.store import refs

    for name in among:
        with suppress(OwmError):
            if (found := store.find(refs.parse(name))) is not None and not found.is_gone:
                return found
    stored = [(model.last_used, model) for model in store.models() if not model.is_gone]
    used = [(when, model) for when, model in stored if when is not None]
    return max(used, key=lambda pair: pair[0])[1] if used else None
