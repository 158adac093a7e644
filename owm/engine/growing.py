"""A scheduler whose context can be made anew in a larger size, even in the midst of an answer."""

from collections.abc import Callable
from typing import Any

from owm.engine.scheduler import Scheduler
from owm.engine.sharing import Sharing
from owm.errors import OwmError
from owm.native import state
from owm.native.llama import Context


class GrowingScheduler(Scheduler):
    """A scheduler that makes its own context."""

    def __init__(self, make: Callable[[int], Context], n_ctx: int, **more: Any) -> None:
        """Make a context.

        Args:
            make: makes a context whose sequences have so many tokens.
            n_ctx: the most tokens that a sequence may have at first.
            more: as `Scheduler` takes it.
        """
        super().__init__(make(n_ctx), n_ctx_limit=n_ctx, **more)
        self._make = make

    @property
    def n_left(self) -> int:
        """How many more tokens the only request under way may have; without one, or with several, the limit of all."""
        if len(self._running) != 1:
            return self._limit
        [running] = self._running
        return running.limit - running.n_past - len(running.pending)

    def grow(self, n_ctx: int, *, carries: bool = True) -> bool:
        """Go on in a larger context, with what is retained and the one request that may be under way.

        Between two steps only: in the decoding thread, or while nothing runs. The old context is freed first: there is
        seldom memory for both.

        Args:
            carries: what was read holds in the larger context as well; else it is read again.

        Returns:
            Whether it is larger now; there may be no memory for it.

        Raises:
            EngineError: not even a context like the one before can be made any more; the scheduler is closed.
        """
        with self._stepping:
            if self._is_closed or self.retained is None or len(self._running) > 1:
                return False
            running = self._running[0] if self._running else None
            slot, held = self.retained.longest() if running is None else (running.slot, tuple(running.fed or ()))
            old = self._context
            saved = state.save_state(old, slot) if held and carries else None
            old.close()
            try:
                self._context, is_larger = self._made(n_ctx)
            except BaseException:
                self._shut()
                raise
            if old.is_cancelled:  # also where that came meanwhile
                self._context.cancel()
            if is_larger:
                self._limit = min(n_ctx, self._context.n_ctx_sequence)
            is_held = saved is not None and state.load_state(self._context, slot, saved)
            self._sharing = Sharing(self._context, range(self._n_slots, self._context.n_sequences), self.retained.keep)
            retained = {slot: held} if is_held and running is None else {}
            self.retained.move(self._context, retained, keeps_checkpoints=carries)
            if running is not None:
                running.move_into(self._context, self._limit, is_held=is_held)
                if running.prefixes:
                    self._sharing.begin(running)
            return is_larger

    def _made(self, n_ctx: int) -> tuple[Context, bool]:
        """Make a context of another size, or one like the last if that cannot be; return whether it is the former."""
        try:
            return self._make(n_ctx), True
        except OwmError:
            return self._make(self._limit), False
