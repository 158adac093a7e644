"""A tiny GGUF that says what a test wants: real llama.cpp, real tokens, a greedy answer that was written beforehand.

The weights are a table of n-grams. Heads of the one attention layer copy the codes of the last tokens to where the next
one is made (rotary positions let a head look exactly k tokens back), each unit of the feed-forward layer recognises
one context, and the output matrix holds the logits that follow it; the longest context that fits decides. A huge
constant in the residual makes the norms do nothing. Tokens that are in no script are one and the same to it.
"""

import functools
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import gguf
import numpy as np

from owm.engine.template import ChatTemplate
from support.tiny_gguf import CHATML, SPECIALS, Value, _add

END = "(end of turn)"  # as a piece: the model's end-of-sequence token
HARMONY = ("<|return|>", "<|call|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>")

Step = str | Mapping[str, float]
Script = str | Sequence[Step]

_CERTAIN = 30.0  # the logit of what has probability 1; all that is in no script shares 1e-13 a token
_CONSTANT = 1e4  # in the residual; the rest changes its norm by 1e-7
_SHARP = 60.0  # how far a recognised context is from any other
_LOOK = 120.0  # how sharply a head looks at its place
_MAX_CONTEXT = 8
_FREQUENCIES, _ROPE_BASE = 8, 100.0


def write_scripted_gguf(
    path: Path,
    script: Script,
    *,
    after: Mapping[str, Script] | None = None,
    chances: Mapping[tuple[str, ...], Mapping[str, float]] | None = None,
    loop_from: int | None = None,
    template: str | None = CHATML,
    control: Sequence[str] = SPECIALS,
    marks: Sequence[str] = (),
    eos: str = "<|im_end|>",
    n_ctx_train: int = 512,
    metadata: Mapping[str, Value | None] | None = None,
) -> Path:
    """Write a model whose greedy answer to any prompt is `script`, then the end of the turn; return `path`.

    Args:
        script: the tokens one by one; a text is cut into special tokens, words and characters. A step may be a mapping
            from pieces to probabilities: all of them go on to the next step.
        after: other answers to what ends with a certain text (of the prompt, or fed later): `{"</think>": "Yes"}`.
        chances: probabilities of what comes after certain pieces, stronger than any script; `END` is the end.
        loop_from: after the script's last step, go on with this one for ever.
        template: the chat template; None leaves the key out. Its end is where `script` begins.
        control: special tokens that llama.cpp shows only when asked to.
        marks: special tokens that are always shown, like `<think>` in most models that think.
        eos: the token that ends a turn, one of `control`.
    """
    specials = sorted([*control, *marks], key=len, reverse=True)

    def steps(given: Script) -> list[Mapping[str, float]]:
        listed = pieces(given, specials) if isinstance(given, str) else given
        found = [{step: 1.0} if isinstance(step, str) else dict(step) for step in listed]
        assert all(math.isclose(sum(step.values()), 1.0) for step in found), "probabilities that do not sum to 1"
        return [{eos if piece == END else piece: p for piece, p in step.items()} for step in found]

    begin = tuple(typed(_generation_prompt(template), specials)) if template else ()
    states: list[Mapping[str, float]] = []
    histories: list[tuple[tuple[str, ...], int]] = []
    grams: dict[tuple[str, ...], int] = {}
    _walk(steps(script), begin, loop_from, eos, states, histories)
    for text, other in (after or {}).items():
        context = tuple(typed(text, specials))
        grams[context[-_MAX_CONTEXT:]] = len(states)
        _walk(steps(other), context, None, eos, states, histories)
    for history, state in histories:
        if (
            history[-_MAX_CONTEXT:] not in grams
            and grams.setdefault(_shortest(history, state, histories), state) != state
        ):
            raise ValueError(f"two answers for one context: {history}")
    for context, chance in (chances or {}).items():
        grams[tuple(eos if piece == END else piece for piece in context)] = len(states)
        states += steps([chance])
    grams.setdefault((), 0)
    path.write_bytes(
        _file(
            tuple(grams.items()),
            tuple(tuple(state.items()) for state in states),
            template,
            tuple(control),
            tuple(marks),
            eos,
            n_ctx_train,
            tuple((metadata or {}).items()),
        )
    )
    return path


def pieces(text: str, specials: Sequence[str]) -> list[str]:
    """Cut a text into special tokens, words with the space before them, and single characters."""
    names = "|".join(map(re.escape, specials)) or "(?!)"
    return re.findall(rf"{names}| ?\w+|.", text, flags=re.DOTALL)


def typed(text: str, specials: Sequence[str]) -> list[str]:
    """Cut a text as llama.cpp tokenizes it with this vocabulary: special tokens, and single bytes of all the rest."""
    names = "|".join(map(re.escape, specials)) or "(?!)"
    parts = re.split(f"({names})", text)
    return [
        token
        for i, part in enumerate(parts)
        for token in ([part] if i % 2 else [chr(byte) if byte < 128 else f"byte {byte}" for byte in part.encode()])
    ]


def _generation_prompt(template: str) -> str:
    """Return what a template writes after the last message."""
    marker = "the-last-message"
    text = ChatTemplate(template, is_trusted=True).render([{"role": "user", "content": marker}])
    return text.rpartition(marker)[2]


def _walk(
    steps: Sequence[Mapping[str, float]],
    context: tuple[str, ...],
    loop_from: int | None,
    eos: str,
    states: list[Mapping[str, float]],
    histories: list[tuple[tuple[str, ...], int]],
) -> None:
    """Add the states of a script, and every history (all the tokens before) in which each of them is reached."""
    first, n = len(states), len(steps)
    states += steps
    if loop_from is None:
        # Whoever bans the end hears it all again.
        states.append({eos: 1.0 - 1e-6, max(steps[0], key=steps[0].__getitem__): 1e-6} if steps else {eos: 1.0})
    order = [*range(n), n] if loop_from is None else [*range(n), *(list(range(loop_from, n)) * _MAX_CONTEXT)]
    tails = [context]
    for index in order:
        histories += [(tail, first + index) for tail in tails]
        if index < n:
            tails = list(dict.fromkeys((*tail, piece)[-2 * _MAX_CONTEXT :] for tail in tails for piece in steps[index]))


def _shortest(history: tuple[str, ...], state: int, histories: list[tuple[tuple[str, ...], int]]) -> tuple[str, ...]:
    """Return the fewest last tokens that tell a history from those in which something else follows."""
    for length in range(1, _MAX_CONTEXT + 1):
        suffix = history[-length:]
        if len(suffix) < length:
            return history
        if not any(other[-length:] == suffix for other, follower in histories if follower != state):
            return suffix
    raise ValueError(f"the script repeats itself for {_MAX_CONTEXT} tokens and more: {history[-_MAX_CONTEXT:]}")


@functools.lru_cache(maxsize=32)
def _file(
    grams: tuple[tuple[tuple[str, ...], int], ...],
    states: tuple[tuple[tuple[str, float], ...], ...],
    template: str | None,
    control: tuple[str, ...],
    marks: tuple[str, ...],
    eos: str,
    n_ctx_train: int,
    metadata: tuple[tuple[str, Value | None], ...],
) -> bytes:
    contexts = [context for context, _ in grams if context]
    known = list(dict.fromkeys(piece for context in contexts for piece in context))
    said = list(dict.fromkeys(piece for state in states for piece, _ in state))
    ids, tokens, kinds = _vocabulary(control, marks, [*known, *said])
    n_heads = max(1, max(map(len, contexts), default=1) - 1)
    width = -(-max(len(known), 2 * _FREQUENCIES) // 32) * 32
    codes = {piece: i for i, piece in enumerate(known)}
    # The residual: the constant, the code of this token, of the one before it, …, and one mark per recognised context.
    first_mark = 1 + width * (1 + n_heads)
    n_embd = -(-(first_mark + len(contexts)) // 32) * 32

    embeddings = np.zeros((len(tokens), n_embd), np.float32)
    embeddings[:, 0] = _CONSTANT
    for piece, code in codes.items():
        embeddings[ids[piece], 1 + code] = 1
    query, key, value = (np.zeros((n_heads * width, n_embd), np.float32) for _ in range(3))
    out = np.zeros((n_embd, n_heads * width), np.float32)
    size = math.sqrt(_LOOK * math.sqrt(width))
    for head in range(n_heads):
        for j in range(_FREQUENCIES):
            pair = width // 2 * j // _FREQUENCIES
            angle = (head + 1) * _ROPE_BASE ** (-2 * pair / width)
            row = head * width + 2 * pair
            # A key is turned by its position, a query by its own, here back by as many places as the head looks.
            key[row, 0] = size / _CONSTANT
            query[row, 0], query[row + 1, 0] = (
                size * math.cos(-angle) / _CONSTANT,
                size * math.sin(-angle) / _CONSTANT,
            )
        for code in range(width):
            value[head * width + code, 1 + code] = 1
            out[1 + (1 + head) * width + code, head * width + code] = 1
    n_units = max(32, len(contexts))
    gate, up, down = (np.zeros(shape, np.float32) for shape in [(n_units, n_embd)] * 2 + [(n_embd, n_units)])
    logits = np.zeros((len(tokens), n_embd), np.float32)

    def follow(state: int, column: int, scale: float) -> None:
        for piece, p in states[state]:
            logits[ids[piece], column] = (_CERTAIN + math.log(p)) * scale

    follow(dict(grams)[()], 0, 1 / _CONSTANT)
    for unit, context in enumerate(contexts):
        for back, piece in enumerate(reversed(context)):
            gate[unit, 1 + back * width + codes[piece]] = _SHARP
        gate[unit, 0] = -_SHARP * (len(context) - 0.5) / _CONSTANT
        up[unit, 0] = 2 / _SHARP / _CONSTANT
        down[first_mark + unit, unit] = 1
        follow(dict(grams)[context], first_mark + unit, 1)
        shorter = [contexts.index(end) for n in range(1, len(context)) if (end := context[n:]) in contexts]
        if shorter:
            down[first_mark + shorter[0], unit] = -1
        logits[:, first_mark + unit] -= logits[:, 0] * _CONSTANT  # it takes back what the constant says

    keys: dict[str, Value] = {
        "general.name": "A script of the tests",
        "general.file_type": int(gguf.LlamaFileType.ALL_F32),
        "llama.block_count": 1,
        "llama.context_length": n_ctx_train,
        "llama.embedding_length": n_embd,
        "llama.feed_forward_length": n_units,
        "llama.attention.head_count": n_heads,
        "llama.attention.head_count_kv": n_heads,
        "llama.attention.key_length": width,
        "llama.attention.value_length": width,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": width,
        "llama.rope.freq_base": _ROPE_BASE,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": ids[eos],
        "tokenizer.ggml.add_bos_token": False,
    }
    if template is not None:
        keys["tokenizer.chat_template"] = template
    for name, setting in metadata:
        keys.pop(name, None)
        if setting is not None:
            keys[name] = setting
    gain = np.full(n_embd, _CONSTANT / math.sqrt(n_embd), np.float32)  # undoes the norm, which the constant decides
    tensors = {
        "token_embd": embeddings,
        "blk.0.attn_norm": gain,
        "blk.0.attn_q": query,
        "blk.0.attn_k": key,
        "blk.0.attn_v": value,
        "blk.0.attn_output": out,
        "blk.0.ffn_norm": gain,
        "blk.0.ffn_gate": gate,
        "blk.0.ffn_up": up,
        "blk.0.ffn_down": down,
        "output_norm": gain,
        "output": logits,
    }
    with tempfile.TemporaryDirectory(prefix="owm-scripted-") as folder:
        file = Path(folder, "scripted.gguf")
        writer = gguf.GGUFWriter(file, "llama")
        for name, setting in keys.items():
            _add(writer, name, setting)
        writer.add_token_list(tokens)
        writer.add_token_types(kinds)
        writer.add_token_merges(["ÿ ÿ"])  # llama.cpp wants some; this one joins nothing that is UTF-8
        for name, tensor in tensors.items():
            writer.add_tensor(f"{name}.weight", tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return file.read_bytes()


def _vocabulary(
    control: Sequence[str], marks: Sequence[str], said: Sequence[str]
) -> tuple[dict[str, int], list[str], list[int]]:
    """Return the ids of pieces, all tokens as the file has them, and their types: specials, all bytes, then pieces."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}
    tokens = [*control, *marks, *(symbols[byte] for byte in range(256)), "ÿÿ"]
    kinds = [gguf.TokenType.CONTROL] * len(control) + [gguf.TokenType.USER_DEFINED] * len(marks)
    ids = {token: i for i, token in enumerate([*control, *marks])}
    ids |= {chr(byte) if byte < 128 else f"byte {byte}": len(ids) + byte for byte in range(256)}
    for piece in said:
        if piece not in ids:
            ids[piece] = len(tokens)
            tokens.append("".join(symbols[byte] for byte in piece.encode()))
    return ids, tokens, [*map(int, kinds), *[int(gguf.TokenType.NORMAL)] * (len(tokens) - len(kinds))]
