"""Targets of fuzzing: headers of model files, and all that owm makes of one that it took."""

import json
import random
import sys
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lib import mutated_gguf
from lib.fuzz_case import Target, Wrong, tell
from lib.inside import ROOT
from lib.mutated_gguf import Tree
from lib.mutation import dump_json, encode, integer, mutate_bytes, mutate_json

sys.path.insert(0, str(ROOT / "tests"))


def write_hollow(path: Path, case: bytes) -> None:
    """Write the file of a case: a header and a hole."""
    length = int.from_bytes(case[:8], "little")
    with open(path, "wb") as file:
        file.write(case[8:])
        file.truncate(min(length, mutated_gguf.MAX_FILE_BYTES))


class _Copies:
    """In the place of the child that knows which weights llama.cpp repacks: here none are."""

    def copies(self, asked: Sequence[Any]) -> list[int]:
        return [0] * len(asked)


class Gguf(Target):
    """GGUF headers, and what `list`, `show`, `fit`, `run` and `quantize` read of them."""

    name = "gguf"

    @cached_property
    def trees(self) -> list[Tree]:
        """Real headers, small."""
        from owm.quality.certificate import KEY, SIZE
        from support.tiny_gguf import tiny_gguf

        made = [
            tiny_gguf(n_blocks=1),
            tiny_gguf(n_blocks=2, metadata=(("general.sampling.temp", 0.5), (KEY, " " * SIZE))),
            tiny_gguf(
                n_blocks=1,
                metadata=(("llama.expert_count", 4), ("llama.expert_used_count", 2), ("general.alignment", 64)),
            ),
        ]
        trees = [mutated_gguf.parse(raw) for raw in made]
        with tempfile.TemporaryDirectory() as folder:
            trees.append(_adapter(Path(folder)))
            trees += [mutated_gguf.parse(path.read_bytes()) for path in _models(Path(folder))]
        small = [tree.shortened(6, 7) for tree in trees]
        return [*small, *trees, mutated_gguf.parse(made[0], most_items=300)]  # the last with a token for every byte

    @cached_property
    def seeds(self) -> list[bytes]:
        return [mutated_gguf.whole(tree) for tree in self.trees]

    def mutate(self, dice: random.Random, kept: Sequence[bytes]) -> bytes:
        if dice.random() < 0.2:
            case = dice.choice(kept)
            return case[:8] + mutate_bytes(dice, case[8:], kept)
        roll, n_small = dice.random(), len(self.trees) // 2
        chosen = self.trees[:n_small] if roll < 0.85 else self.trees[n_small:-1] if roll < 0.98 else self.trees[-1:]
        return mutated_gguf.mutate(dice, chosen)

    def drive(self, case: bytes, folder: Path) -> None:
        from owm.formats import gguf

        path = folder / "tiny.gguf"
        write_hollow(path, case)
        header = gguf.read_header(path)
        use_header(header, case[8:])
        if len(case) % 8 == 0:  # reads it all once more
            from owm.pipeline.model_file import open_model_file

            tell(open_model_file, [path])


def use_header(header: Any, raw: bytes) -> None:
    """Do with a header that was taken what commands do."""
    from owm.engine import context, family, sampling
    from owm.engine.tuning import Tuning
    from owm.fit import fit, memory, speed, work
    from owm.fit import header as remote
    from owm.quality import certificate

    tell(header.check_vocabulary)
    texts = (header.architecture, header.text("general.name"), header.text("general.license"), header.file_type)
    if not all(text is None or isinstance(text, str) for text in texts) or not isinstance(header.n_params, int):
        raise Wrong("a fact of the wrong kind")
    end = remote.extent(raw, header.path)
    is_whole = header.data_offset <= len(raw)  # else it ends in the hole, or before one
    if (end is None and is_whole) or (end or 0) > header.data_offset:
        raise Wrong("two readers disagree on where the header ends")
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "imatrix.datasets"):
        header.strings(key)
    if header.raw_values().keys() != header.metadata.keys():
        raise Wrong("a value has no place")
    certificate.of_header(header), certificate.place_of(header)
    sampling.of_file(header), family.sampling_defaults(header), family.takes_system(header)
    n_bytes = sum(tensor.n_bytes for tensor in header.tensors)
    context.state_bytes(header)
    tell(context.choose, header, n_prompt=9, max_tokens=None, asked=None, weights_bytes=n_bytes, memory_bytes=8 << 30)
    tell(context.ceiling, header, asked=4096, weights_bytes=n_bytes, memory_bytes=8 << 30)
    fit.default_context(header), fit.bits_per_weight([header], header.file_bytes)
    work.work_of([header]), tell(speed.predict, [header], _rates())
    need = memory.Need(512, 1, memory.Buffers(), memory.Buffers(), 0, 0, n_gpu_layers=1)
    tell(memory.with_weights, need, [header], _Copies())
    memory.retyped([header], {tensor.name: "Q4_K" for tensor in header.tensors[:8]})
    memory.Asked(fit.default_context(header), Tuning(n_parallel=2)).wish()


def _rates() -> Any:
    global _RATES
    if _RATES is None:
        from owm.formats.gguf import TENSOR_TYPES
        from owm.hardware.matvec import Attention, Line, Product, Rates, Rest

        line = Line(1e-7, 1e-10)
        product = Product(line, line, line)
        products = {name: product for name, _, _ in TENSOR_TYPES.values()}
        _RATES = Rates(2, 1 << 20, 1e10, Rest(1e-5, 1e-6, 1e-9, 1e-9, 1e-9), products, {"F16": Attention(line, line)})
    return _RATES


_RATES: Any = None


def _models(folder: Path) -> list[Path]:
    """Make other kinds of tiny models."""
    from support.tiny_moe import write_tiny_moe

    return [write_tiny_moe(folder / "moe.gguf", n_experts=2, n_used=1)]


def _adapter(folder: Path) -> Tree:
    """Make an adapter of the tiny model."""
    from support.tiny_adapter import MODULES, factors, write_adapter

    sizes = dict(
        zip(
            ("blk.0.attn_q.weight", "blk.1.attn_v.weight", "blk.1.ffn_down.weight", "output.weight"),
            MODULES.items(),
            strict=True,
        )
    )
    tensors = {}
    for name, (module, (n_out, n_in)) in sizes.items():
        tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"] = factors(module, n_out, n_in)
    return mutated_gguf.parse(write_adapter(folder / "adapter.gguf", tensors).read_bytes())


class Adapter(Target):
    """LoRA adapters, checked against a model's headers."""

    name = "adapter"

    @cached_property
    def trees(self) -> list[Tree]:
        with tempfile.TemporaryDirectory() as folder:
            return [_adapter(Path(folder))]

    @cached_property
    def seeds(self) -> list[bytes]:
        return [mutated_gguf.whole(tree) for tree in self.trees]

    @cached_property
    def model(self) -> Any:
        from owm.formats.gguf import read_header
        from support.tiny_gguf import tiny_gguf

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.gguf")
            path.write_bytes(tiny_gguf())
            return read_header(path)

    def warm_up(self, folder: Path) -> None:
        _ = self.model
        super().warm_up(folder)

    def mutate(self, dice: random.Random, kept: Sequence[bytes]) -> bytes:
        return mutated_gguf.mutate(dice, self.trees)

    def drive(self, case: bytes, folder: Path) -> None:
        from owm.engine.adapter import check_adapter

        path = folder / "adapter.gguf"
        write_hollow(path, case)
        check_adapter(path, [self.model])


class Imatrix(Target):
    """Importance matrices of both formats."""

    name = "imatrix"

    @cached_property
    def seeds(self) -> list[bytes]:
        import struct

        import numpy as np

        from owm.formats.imatrix import Entry, write_imatrix
        from owm.formats.imatrix import Imatrix as Matrix

        sums = np.arange(64, dtype=np.float32)
        entries = {
            "blk.0.attn_q.weight": Entry(sums.reshape(1, 64), np.array([9])),
            "blk.0.ffn_up_exps.weight": Entry(sums.reshape(4, 16), np.array([9, 0, 2, 1])),
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "imatrix.gguf")
            write_imatrix(Matrix(entries, ("a", "b"), 3, 512), path)
            new = path.read_bytes()
        old = (
            struct.pack("<ii9sii", 1, 9, b"blk.0.x.w", 3, 8) + sums[:8].tobytes() + struct.pack("<ii4s", 2, 4, b"text")
        )
        return [new, old]

    def mutate(self, dice: random.Random, kept: Sequence[bytes]) -> bytes:
        roll = dice.random()
        if roll < 0.5:
            case = mutated_gguf.mutate(dice, [mutated_gguf.parse(self.seeds[0])])
            return case[8:] + bytes(max(0, min(int.from_bytes(case[:8], "little") - len(case) + 8, 4096)))
        return mutate_bytes(dice, dice.choice(kept if roll < 0.6 else self.seeds), kept)

    def drive(self, case: bytes, folder: Path) -> None:
        from owm.formats.imatrix import check, read_imatrix

        path = folder / "imatrix.gguf"
        path.write_bytes(case)
        found = read_imatrix(path)
        for name in found.entries:
            found.weights(name)
        found.unhit(), found.filled()
        tell(check, found, {"blk.0.attn_q.weight": (64, 1), "blk.0.ffn_up_exps.weight": (16, 4)})


class Safetensors(Target):
    """Safetensors headers."""

    name = "safetensors"

    @cached_property
    def entries(self) -> list[dict[str, Any]]:
        """Real headers as JSON's values."""
        import numpy as np

        from support.tiny_checkpoint import files_of
        from support.tiny_safetensors import pack

        many = {f"t{i}": np.zeros((2, i), np.float16) for i in range(4)}
        odd = {
            "a": ("F4", (4, 2), bytes(4)),
            "b": ("F8_E4M3", (3,), bytes(3)),
            "empty": ("F32", (0, 7), b""),
            "scalar": ("I64", (), bytes(8)),
        }
        files = [files_of()["model.safetensors"], pack(many, {"format": "pt"}), pack(odd)]
        found = [json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")]) for raw in files]
        found[0] = dict(sorted(found[0].items(), key=lambda item: item[1]["data_offsets"])[:6])
        return found

    @cached_property
    def seeds(self) -> list[bytes]:
        return [_packed(each) for each in self.entries]

    def mutate(self, dice: random.Random, kept: Sequence[bytes]) -> bytes:
        roll = dice.random()
        if roll < 0.12:
            case = dice.choice(kept)
            return case[:8] + mutate_bytes(dice, case[8:], kept)
        entries = dict(dice.choice(self.entries[1:] if roll < 0.9 else self.entries[:1]))
        for _ in range(dice.randrange(1, 4)):
            entries = _CHANGES[dice.randrange(len(_CHANGES))](dice, entries)
            if not isinstance(entries, dict):
                break
        text = dump_json(dice, entries)
        header = encode(text) + b" " * dice.choice((0, 0, 1, 7))
        if dice.random() < 0.05:
            header = mutate_bytes(dice, header)
        return _packed(entries, header, dice)

    def drive(self, case: bytes, folder: Path) -> None:
        from owm.formats import safetensors

        path = folder / "model.safetensors"
        write_hollow(path, case)
        header = safetensors.read_header(path)
        end = header.data_offset
        for name, each in header.tensors.items():
            if name != each.name or each.offset != end:
                raise Wrong("tensors do not follow one another")
            end += each.n_bytes
        if end != header.file_bytes:
            raise Wrong("tensors do not fill the file")
        if not all(isinstance(text, str) for text in header.metadata.values()):
            raise Wrong("metadata that is no text")


def _packed(entries: Any, header: bytes | None = None, dice: random.Random | None = None) -> bytes:
    raw = encode(json.dumps(entries, separators=(",", ":"))) if header is None else header
    length, data = len(raw), 0
    if isinstance(entries, dict):
        for each in entries.values():
            if isinstance(each, dict) and isinstance(offsets := each.get("data_offsets"), list) and len(offsets) == 2:
                data = max(data, *(each for each in offsets if type(each) is int), 0) if offsets else data
    file_bytes = 8 + len(raw) + data
    if dice is not None and dice.random() < 0.06:
        length = dice.choice((length - 1, length + 1, 0, 7, 1 << 26, integer(dice)))
    if dice is not None and dice.random() < 0.06:
        file_bytes += dice.choice((-1, 1, -8, 1 << 20))
    return mutated_gguf.framed((length & ((1 << 64) - 1)).to_bytes(8, "little") + raw, file_bytes)


def _laid_out(dice: random.Random, entries: dict[str, Any]) -> dict[str, Any]:
    """Change shapes and types, and give all tensors the offsets that they should have."""
    from owm.formats.safetensors import DTYPE_BITS

    end, made = 0, {}
    for name, each in entries.items():
        if name == "__metadata__" or not isinstance(each, dict):
            made[name] = each
            continue
        dtype = dice.choice(list(DTYPE_BITS)) if dice.random() < 0.2 else each.get("dtype")
        shape = each.get("shape")
        if dice.random() < 0.2:
            shape = [dice.choice((0, 1, 2, 8, 1 << 20, 1 << 31)) for _ in range(dice.choice((0, 1, 2, 3, 8, 9)))]
        n_bits = DTYPE_BITS.get(dtype, 8) if isinstance(dtype, str) else 8
        for size in shape if isinstance(shape, list) else ():
            n_bits *= size if type(size) is int else 1
        n_bytes = max(0, n_bits) // 8
        made[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + n_bytes]}
        end += n_bytes
    items = list(made.items())
    if dice.random() < 0.3:
        dice.shuffle(items)
    return dict(items)


def _renamed(dice: random.Random, entries: dict[str, Any]) -> dict[str, Any]:
    old = dice.choice(list(entries) or [""])
    new = dice.choice(("", "__metadata__", "x" * 1024, "x" * 1025, "\ud800", "é", "\x1b[2J", "a\0b", old + "_"))
    return {new if name == old else name: each for name, each in entries.items()}


_CHANGES = (
    lambda dice, entries: mutate_json(dice, entries),
    _laid_out,
    lambda dice, entries: mutate_json(dice, entries),
    _renamed,
)


class Checkpoint(Target):
    """Checkpoints' small files: the index of the shards, config.json, the configs of adapters and of sampling."""

    name = "checkpoint"

    @cached_property
    def files(self) -> dict[str, bytes]:
        from support.tiny_checkpoint import files_of

        made = files_of(n_shards=2)
        adapter = {
            "peft_type": "LORA",
            "r": 4,
            "lora_alpha": 6,
            "target_modules": ["q_proj"],
            "bias": "none",
            "alpha_pattern": {"q": 3},
            "use_rslora": False,
        }
        small = {name: raw for name, raw in made.items() if name.endswith(".json") and name != "tokenizer.json"}
        return small | {"adapter_config.json": json.dumps(adapter).encode()}

    @cached_property
    def seeds(self) -> list[bytes]:
        return [name.encode() + b"\0" + raw for name, raw in self.files.items()]

    def warm_up(self, folder: Path) -> None:
        from support.tiny_checkpoint import write_tiny_checkpoint

        write_tiny_checkpoint(folder / "checkpoint", n_shards=2)
        super().warm_up(folder)

    def mutate(self, dice: random.Random, kept: Sequence[bytes]) -> bytes:
        from lib.mutation import mutate_json_file

        name, raw = dice.choice(list(self.files.items()))
        return name.encode() + b"\0" + mutate_json_file(dice, raw, list(self.files.values()))

    def drive(self, case: bytes, folder: Path) -> None:
        from owm.convert import peft
        from owm.convert.checkpoint import open_checkpoint

        name, _, raw = case.partition(b"\0")
        home = folder / "checkpoint"
        path = home / name.decode("utf-8", "replace")
        if path.name not in self.files:
            return
        path.write_bytes(raw)
        try:
            if path.name == "adapter_config.json":
                settings = peft.Settings.read(peft.read_config(home))
                settings.factor("model.q", 4), peft.base_of(home)
            elif path.name == "generation_config.json":
                from owm.settings import generation_config

                generation_config.read(path)
            else:
                tell(open_checkpoint, home)
                from owm.convert.conversion import plan_folder

                plan_folder(home)
        finally:
            path.write_bytes(self.files[path.name])
