"""History and completion as prompt_toolkit wants them, over `history` and `completion`."""

from collections.abc import Callable, Iterable

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import History

from owm.cli.chat.completion import Facts, offers
from owm.cli.chat.history import HistoryFile, whole
from owm.errors import OwmError


class Typed(History):
    """What was typed, now and before; `say` is told once if it cannot be kept."""

    def __init__(self, file: HistoryFile, say: Callable[[str], None]) -> None:
        super().__init__()
        self._file = file
        self._say = say
        self._is_told = False

    def load_history_strings(self) -> Iterable[str]:
        """Return what the file has, the newest first."""
        found = self._file.load()
        self._tell()
        return reversed(found)

    def store_string(self, string: str) -> None:
        """Write down what was typed."""
        self._file.add(whole(string))
        self._tell()

    def hold(self, text: str) -> None:
        """Keep a text that was not sent where Up finds it, but not in the file."""
        self._loaded_strings.insert(0, text)

    def _tell(self) -> None:
        if self._file.problem is not None and not self._is_told:
            self._is_told = True
            self._say(self._file.problem)


class Offers(Completer):
    """What Tab offers."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Return what can stand at the cursor."""
        before = document.text_before_cursor
        try:
            found = offers(before, self._facts)
        except (OwmError, OSError):  # a store that cannot be read is told of by what reads it
            return
        for offer in found:
            yield Completion(offer.text, offer.start - len(before), offer.shown, offer.about)
