"""A whole vocabulary at once: what each token adds to a text, and which tokens end one.

`Model.piece` answers for one token; asking it for all of a large vocabulary takes three times as long as this does.
"""

import ctypes
from dataclasses import dataclass

from owm.errors import EngineError
from owm.native.binding import llama as c
from owm.native.llama import Model

_LONGEST_PIECE = 4096

# These prototypes keep the interpreter's lock: taking it back 49,152 times costs more than the calls.
_piece = ctypes.PYFUNCTYPE(
    ctypes.c_int32,
    ctypes.c_void_p,
    ctypes.c_int32,
    ctypes.c_void_p,
    ctypes.c_int32,
    ctypes.c_int32,
    ctypes.c_bool,
)(("llama_token_to_piece", c._lib))


@dataclass(frozen=True, slots=True)
class TokenTable:
    """All tokens of a model.

    Attributes:
        pieces: the bytes that each token adds to a text; none for control tokens.
        names: the text of each control token.
        ends: the tokens that end a turn or a text.
        vocab_address: llama.cpp's vocabulary, valid until the model is closed.
        tokenize_address: llama.cpp's function that tokenizes with it.
    """

    pieces: list[bytes]
    names: dict[int, bytes]
    ends: tuple[int, ...]
    vocab_address: int
    tokenize_address: int


def read_tokens(model: Model) -> TokenTable:
    """Read the vocabulary of a model.

    Raises:
        EngineError: the model is closed, or a token is absurdly long.
    """
    if not model.pointer:
        raise EngineError("the model is closed")
    vocab = ctypes.cast(model.vocab, ctypes.c_void_p)
    buffer = ctypes.create_string_buffer(_LONGEST_PIECE)
    address = ctypes.c_void_p(ctypes.addressof(buffer))
    pieces: list[bytes] = []
    for token in range(model.n_vocab):
        n_bytes = _piece(vocab, token, address, _LONGEST_PIECE, 0, False)
        if n_bytes < 0:
            raise EngineError(f"token {token} of the model is {-n_bytes} bytes long")
        pieces.append(ctypes.string_at(address, n_bytes))
    silent = [token for token, piece in enumerate(pieces) if not piece]
    # llama.cpp makes control tokens of all that it knows to end a text, except for those that the file itself names.
    candidates = {*silent, c.llama_vocab_eos(model.vocab), c.llama_vocab_eot(model.vocab)}
    return TokenTable(
        pieces,
        {token: model.piece(token, special=True) for token in silent},
        tuple(sorted(token for token in candidates if token >= 0 and model.is_end(token))),
        vocab.value or 0,
        ctypes.cast(c._lib.llama_tokenize, ctypes.c_void_p).value or 0,
    )
