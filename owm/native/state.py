"""What a context has read of one sequence, as bytes: llama.cpp's own format, which belongs to one build of it.

Nothing here tells damaged bytes from whole ones, and llama.cpp hardly does: whoever loads some has checked them.
"""

import ctypes

from owm.errors import EngineError
from owm.native.binding import llama as c
from owm.native.llama import Context, Model

_PARTIAL = 1  # LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY


def state_size(context: Context, sequence: int, *, is_partial: bool = False) -> int:
    """Return how many bytes `save_state` gives."""
    return int(c.llama_state_seq_get_size_ext(context.pointer, sequence, _PARTIAL if is_partial else 0))


def save_state(context: Context, sequence: int, *, is_partial: bool = False) -> bytearray:
    """Copy what a context has read of a sequence.

    Args:
        is_partial: leave out what can be cut back to an earlier position (in hybrid models, what attention keeps).

    Raises:
        EngineError: llama.cpp fails.
    """
    state = bytearray(state_size(context, sequence, is_partial=is_partial))
    n = 0
    if state:
        begin = ctypes.byref(ctypes.c_ubyte.from_buffer(state))
        flags = _PARTIAL if is_partial else 0
        n = c.llama_state_seq_get_data_ext(context.pointer, begin, len(state), sequence, flags)
    if n == 0 or n != len(state):
        raise EngineError("llama.cpp cannot save what it has read")
    return state


def load_state(context: Context, sequence: int, state: bytearray, *, is_partial: bool = False) -> bool:
    """Bring a sequence to where it was when its state was saved; where that fails it is emptied, and this is False.

    A partial state replaces its part alone: the rest must reach as far at least, and the caller cuts it.
    """
    n = 0
    if state:
        begin = ctypes.byref(ctypes.c_ubyte.from_buffer(state))
        flags = _PARTIAL if is_partial else 0
        n = c.llama_state_seq_set_data_ext(context.pointer, begin, len(state), sequence, flags)
    if n == 0 or n != len(state):
        context.forget(sequence)
        return False
    return True


def first_position(context: Context, sequence: int) -> int:
    """Return the first position from which on all is kept of a sequence, -1 if nothing is."""
    return int(c.llama_memory_seq_pos_min(context.memory, sequence))


def last_position(context: Context, sequence: int) -> int:
    """Return the last position that is kept of a sequence, -1 if none is."""
    return int(c.llama_memory_seq_pos_max(context.memory, sequence))


def window(model: Model) -> int:
    """Return how far back those layers see that do not see everything, 0 if there are none."""
    return int(c.llama_model_n_swa(model.pointer))
