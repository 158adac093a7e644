"""Beginnings that several prompts have in common: read once, by the first that needs one, and given to the others."""

from collections import OrderedDict
from collections.abc import Callable, Iterable

from owm.engine.running import Prefix, Running
from owm.native.llama import Context


class Sharing:
    """Who reads which prefix, who waits for it, and the sequences in which prefixes are kept for those who come later.

    A kept sequence holds a prefix and nothing else, so that models that cannot forget a part of what they read (a
    recurrent state, a sliding window) can go on from it too. The prefix that was used least lately gives way.
    """

    def __init__(
        self, context: Context, holders: Iterable[int] = (), on_read: Callable[[int, Prefix], None] | None = None
    ) -> None:
        """Keep prefixes in the sequences `holders` of a context, which nothing else uses.

        Args:
            on_read: called with a sequence that has just read a prefix.
        """
        self._context = context
        self._on_read = on_read
        self._empty = list(holders)
        self._held: OrderedDict[Prefix, int] = OrderedDict()
        self._readers: dict[Prefix, Running] = {}
        self._waiting: dict[Prefix, list[Running]] = {}

    @property
    def held(self) -> tuple[Prefix, ...]:
        """The prefixes that are kept."""
        return tuple(self._held)

    def begin(self, running: Running) -> None:
        """Give a request the longest of its prefixes that is kept; the next one it reads, or waits for its reader."""
        n_all = running.n_past + len(running.pending)  # a kept sequence gives no logits: something has to be read
        kept = [prefix for prefix in running.prefixes if prefix in self._held and len(prefix) < n_all]
        for prefix in reversed(kept):  # the shortest is of use to most, so it gives way last
            self._held.move_to_end(prefix)
        if kept:
            running.go_on_from(self._held[kept[-1]], len(kept[-1]))
        if not running.prefixes:
            return
        prefix = running.prefixes[0]
        if self._readers.setdefault(prefix, running) is not running:
            running.awaits = prefix
            self._waiting.setdefault(prefix, []).append(running)

    def advance(self, running: Running) -> None:
        """After a decode: where a request has come to the end of a prefix, keep it, and let others go on from there."""
        if running.awaits is not None or not running.prefixes or running.n_past < len(running.prefixes[0]):
            return
        prefix = running.prefixes.pop(0)
        del self._readers[prefix]
        if self._on_read is not None:
            self._on_read(running.slot, prefix)
        self._keep(prefix, running.slot)
        others = self._waiting.pop(prefix, [])
        for other in others:
            other.awaits = None
            other.go_on_from(running.slot, len(prefix))
            other.logits_index = running.logits_index
        for each in (running, *others):
            if each.prefixes:
                self.begin(each)

    def leave(self, running: Running) -> None:
        """Forget a request that has ended; what it was reading for others, one of them reads from the beginning."""
        if running.awaits is not None:
            self._waiting[running.awaits].remove(running)
        elif running.prefixes and self._readers.get(running.prefixes[0]) is running:
            prefix = running.prefixes[0]
            del self._readers[prefix]
            for other in self._waiting.pop(prefix, []):
                other.awaits = None
                self.begin(other)

    def clear(self) -> None:
        """Forget everything, when nothing runs any more."""
        self._empty += self._held.values()
        self._held.clear()
        self._readers.clear()
        self._waiting.clear()

    def _keep(self, prefix: Prefix, slot: int) -> None:
        if prefix in self._held or not (self._empty or self._held):
            return
        holder = self._empty.pop() if self._empty else self._held.popitem(last=False)[1]
        self._context.forget(holder)
        self._context.share(slot, holder)
        self._held[prefix] = holder
