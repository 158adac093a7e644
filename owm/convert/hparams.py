"""What a checkpoint's config.json says, in either dialect, and how its keys become a model file's.

transformers 4 writes `rope_theta`, `rope_scaling` and `torch_dtype` side by side; transformers 5 writes one
`rope_parameters` (sometimes one for each kind of layer) and `dtype`. Configs of multimodal models nest the language
model's under `text_config`. All of it is read through `Config`, which remembers what was asked for, so that what nobody
asked for can be refused.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from owm.errors import Damaged, Unsupported
from owm.formats.gguf import MAX_LAYERS
from owm.formats.gguf_writer import Value
from owm.units import is_number

MAX_HEADS, MAX_HEAD_DIM = 1 << 14, 1 << 14
_NESTED = ("text_config", "llm_config", "lm_config", "language_config")
_ROPE_KEYS = (
    "rope_parameters", "rope_scaling", "rope_theta", "rotary_emb_base", "partial_rotary_factor", "rotary_pct",
    "rope_pct", "rope_percent", "original_max_position_embeddings", "rope_local_base_freq",
    "global_rope_theta", "local_rope_theta",
)  # fmt: skip
LAYER_COUNT = ("n_layers", "num_hidden_layers", "n_layer", "num_layers")


class Config:
    """The config of the language model: nested ones are laid over the outer one, class defaults lie below both."""

    def __init__(self, raw: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        inner: Mapping[str, Any] = next((raw[key] for key in _NESTED if isinstance(raw.get(key), dict)), {})
        self.raw = raw
        # Nested defaults are filled in below, not replaced; an explicit null means "as the class has it".
        given = {key: value for key, value in {**raw, **inner}.items() if value is not None}
        if inner and raw.get("tie_word_embeddings") is True:  # the outer class ties them, whatever the inner one says
            given["tie_word_embeddings"] = True
        self._values: dict[str, Any] = {**(defaults or {}), **given}
        self._given = frozenset({**raw, **inner})
        self._stated = frozenset(given)
        self.read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def get(self, *names: str, default: Any = None) -> Any:
        """Return the first of `names` that config.json states, else the first with a class default, else `default`."""
        self.read.update(names)
        stated = (self._values[name] for name in names if name in self._stated)
        usual = (value for name in names if (value := self._values.get(name)) is not None)
        return next(stated, next(usual, default))

    def integer(self, *names: str, default: int | None = None) -> int:
        """Return a whole number.

        Raises:
            Damaged: it is missing and has no default, or is something else.
        """
        value = self.get(*names, default=default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(names, value, "a whole number")
        if not -(1 << 31) <= value < 1 << 32:
            raise Damaged(f"config.json: {names[0]} is out of range: {value}")
        return value

    def number(self, *names: str, default: float | None = None) -> float:
        """Return a number as a float; raises as `integer` does."""
        value = self.get(*names, default=default)
        if not is_number(value):
            raise self._wrong(names, value, "a number")
        return float(value)

    def flag(self, *names: str, default: bool = False) -> bool:
        """Return true or false; raises as `integer` does."""
        value = self.get(*names, default=default)
        if not isinstance(value, bool):
            raise self._wrong(names, value, "true or false")
        return value

    def items(self, name: str) -> list[Any]:
        """Return a list, empty if there is none."""
        value = self.get(name, default=[])
        if not isinstance(value, list):
            raise self._wrong((name,), value, "a list")
        return value

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self._count(MAX_LAYERS, *LAYER_COUNT)

    @property
    def n_heads(self) -> int:
        """Number of query heads."""
        return self._count(MAX_HEADS, "num_attention_heads", "n_head", "n_heads")

    @property
    def n_kv_heads(self) -> int:
        """Number of key and value heads."""
        return self.integer("num_key_value_heads", "n_kv_heads", "num_kv_heads", default=self.n_heads)

    @property
    def n_embd(self) -> int:
        """Width of the residual stream."""
        return self.integer("hidden_size", "n_embd", "d_model", "dim", "n_embed")

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        given = self.get("head_dim")
        if given is not None:
            return self._count(MAX_HEAD_DIM, "head_dim")
        if self.n_heads <= 0 or self.n_embd % self.n_heads:
            raise Damaged(f"config.json: hidden_size {self.n_embd} is no multiple of {self.n_heads} heads")
        return self.n_embd // self.n_heads

    def rope(self, layer_type: str = "full_attention") -> dict[str, Any]:
        """Return the rope parameters of a kind of layer in the newer dialect: `rope_type`, `rope_theta`, `factor`, …"""
        self.read.update(_ROPE_KEYS)
        given = self.get("rope_parameters", "rope_scaling", default={})
        if not isinstance(given, dict):
            raise self._wrong(("rope_parameters",), given, "an object")
        if any(isinstance(value, dict) for value in given.values()):
            kind = given.get(layer_type)
            merged = dict(kind) if isinstance(kind, dict) else {}
        else:
            # With both, the older key wins, as in transformers: model cards tell people to add it to newer configs.
            added = self._values.get("rope_scaling") if "rope_scaling" in self._stated else None
            merged = dict(given) | (dict(added) if isinstance(added, dict) else {})
        for name, value in merged.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and not is_number(value):
                raise Damaged(f"config.json: {ascii(name)[1:-1][:40]} of the rope parameters is {ascii(value)[:40]}")
        for name in ("rope_theta", "rotary_emb_base", "global_rope_theta"):
            if merged.get("rope_theta") is None and self._values.get(name) is not None:
                merged["rope_theta"] = self._values[name]
        for name in ("partial_rotary_factor", "rotary_pct", "rope_pct", "rope_percent"):
            if merged.get("partial_rotary_factor") is None and self._values.get(name) is not None:
                merged["partial_rotary_factor"] = self._values[name]
        if merged.get("rope_type") is None:
            merged["rope_type"] = merged.get("type", "default")
        if merged.get("original_max_position_embeddings") is None:
            merged["original_max_position_embeddings"] = self._values.get("original_max_position_embeddings")
        return {key: value for key, value in merged.items() if value is not None}

    def unread(self) -> list[str]:
        """Return the keys of config.json that nothing asked for."""
        return sorted(
            key for key in self._given - self.read if key not in _NESTED and self._values.get(key) is not None
        )

    def is_null(self, name: str) -> bool:
        """Tell whether config.json has the key with an explicit null, which for some classes is no "as usual"."""
        return name in self._given and name not in self._stated

    def value_of(self, name: str) -> Any:
        """Return a value without counting it as asked for."""
        return self._values.get(name)

    def _count(self, limit: int, *names: str) -> int:
        """Return a whole number from 1 to `limit`: loops and tables are made of it."""
        value = self.integer(*names)
        if not 1 <= value <= limit:
            raise Damaged(f"config.json: {names[0]} is out of range: {value}")
        return value

    def _wrong(self, names: tuple[str, ...], value: Any, wanted: str) -> Damaged:
        if value is None:
            return Damaged(f"config.json has no {names[0]}", hint="the checkpoint is incomplete or of an unknown kind")
        return Damaged(f"config.json: {names[0]} should be {wanted}: {ascii(value)[:60]}")


Computed = Callable[[Config], Mapping[str, Value | None]]


@dataclass(frozen=True, slots=True)
class Hparam:
    """One key of the model file and the config keys it comes from; left out when the config has none of them."""

    key: str
    names: tuple[str, ...]
    kind: type = int
    is_required: bool = False

    def __call__(self, config: Config) -> Mapping[str, Value | None]:
        """Read it."""
        if config.get(*self.names) is None and not self.is_required:
            return {}
        reader = {int: config.integer, float: config.number, bool: config.flag}[self.kind]
        return {self.key: reader(*self.names)}


def omit(*keys: str) -> Computed:
    """Leave out keys that an earlier entry has set."""
    return lambda config: dict.fromkeys(keys)


def constant(key: str, value: Value) -> Computed:
    """Set a key to the same value in every model."""
    return lambda config: {key: value}


def evaluate(hparams: Iterable[Computed], config: Config) -> dict[str, Value]:
    """Read all of an architecture's hyperparameters in order; a later one overrides, None removes.

    Raises:
        Damaged: a value is missing, of the wrong type, or too large for a model file.
    """
    found: dict[str, Value | None] = {}
    for hparam in hparams:
        found |= hparam(config)
    made = {key: value for key, value in found.items() if value is not None}
    for key, value in made.items():
        _check_range(key, value)
    return made


def _check_range(key: str, value: Value) -> None:
    """Refuse numbers that do not fit: a model file has unsigned 32-bit ones, signed in lists, and 32-bit floats."""
    items = value if isinstance(value, list | tuple) else [value]
    for item in items:
        if isinstance(item, float) and not abs(item) <= 3.4e38 and item != -math.inf:  # which no config may say
            raise Damaged(f"config.json: {key} is out of range: {item}")
        low, high = (0, 1 << 32) if item is value else (-(1 << 31), 1 << 31)
        if isinstance(item, int) and not low <= item < high:
            raise Damaged(f"config.json: {key} is out of range: {item}")


def rope(config: Config) -> Mapping[str, Value | None]:
    """Translate rope parameters. ref: llama.cpp conversion/base.py; transformers modeling_rope_utils.py"""
    parameters = config.rope()
    found: dict[str, Value | None] = {}
    if "rope_theta" in parameters:
        found["rope.freq_base"] = _number(parameters, "rope_theta")
    rope_type = parameters["rope_type"]
    if rope_type in ("default", "llama3", "none"):  # llama3's factors become a tensor
        return found
    if rope_type == "linear":
        return found | {"rope.scaling.type": "linear", "rope.scaling.factor": _number(parameters, "factor")}
    if rope_type == "yarn":
        found |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": _number(parameters, "factor"),
            "rope.scaling.original_context_length": int(_number(parameters, "original_max_position_embeddings")),
        }
        for key, names in (
            ("ext_factor", ("extrapolation_factor",)),
            ("attn_factor", ("attention_factor", "attn_factor")),
            ("beta_fast", ("beta_fast",)),
            ("beta_slow", ("beta_slow",)),
        ):
            if name := next((name for name in names if name in parameters), None):
                found[f"rope.scaling.yarn_{key}"] = _number(parameters, name)
        return found
    if rope_type in ("longrope", "su"):  # its factors become tensors, its lengths are the architecture's
        return found | {"rope.scaling.type": "longrope"}
    raise Unsupported(f"config.json asks for a rope type that owm does not know: {ascii(rope_type)[:40]}")


def rope_if_unusual(config: Config) -> Mapping[str, Value | None]:
    """Translate rope parameters as `rope` does, without the base that llama.cpp takes by itself."""
    found = rope(config)
    return {**found, "rope.freq_base": None} if found.get("rope.freq_base") == USUAL_ROPE_BASE else found


def only_rope(*types: str) -> Computed:
    """Refuse the kinds of rope that llama.cpp does not compute for an architecture; no key comes of it."""

    def check(config: Config) -> Mapping[str, Value | None]:
        found = str(config.rope()["rope_type"])
        if found not in types:
            raise Unsupported(
                f"the rope type {ascii(found)[:40]} is not supported for this architecture",
                hint=f"llama.cpp computes it with: {', '.join(types)}",
            )
        return {}

    return check


def usual_yarn(config: Config) -> Mapping[str, Value | None]:
    """Refuse a yarn with settings that llama.cpp does not read for most architectures; no key comes of it.

    ref: llama.cpp src/llama-context.cpp; transformers modeling_rope_utils.py, _compute_yarn_parameters
    """
    parameters = config.rope()
    if parameters["rope_type"] != "yarn":
        return {}
    usual = 0.1 * math.log(max(_number(parameters, "factor"), 1.0)) + 1.0
    wanted: dict[str, float] = {"beta_fast": 32, "beta_slow": 1, "truncate": True, "attention_factor": usual}
    for name, value in wanted.items():
        given = parameters.get(name) or value if name.startswith("beta") else parameters.get(name, value)
        if not (isinstance(given, bool) or is_number(given)) or not math.isclose(given, value, rel_tol=1e-5):
            raise Unsupported(
                f"a yarn rope with {name} {ascii(given)[:40]} is not supported for this architecture",
                hint=f"llama.cpp computes it with: {value:.6g}",
            )
    if "attention_factor" not in parameters and parameters.get("mscale") and parameters.get("mscale_all_dim"):
        raise Unsupported("a yarn rope with mscale and mscale_all_dim is not supported for this architecture")
    return {}


def _number(parameters: Mapping[str, Any], name: str) -> float:
    value = parameters.get(name)
    if not is_number(value):
        raise Damaged(f"config.json: {name} of the rope parameters should be a number: {ascii(value)[:40]}")
    return float(value)


def _norms(config: Config) -> Mapping[str, Value | None]:
    found: dict[str, Value | None] = {}
    for key, names in (
        ("attention.layer_norm_rms_epsilon", ("rms_norm_eps", "norm_eps")),
        ("attention.layer_norm_epsilon", ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")),
    ):
        if config.get(*names) is not None:
            found[key] = config.number(*names)
    return found


def _gating(config: Config) -> Mapping[str, Value | None]:
    names = ("score_function", "scoring_func", "score_func", "moe_router_activation", "moe_router_activation_func")
    function = config.get(*names)
    if function is None:
        return {}
    if function not in GATING:
        raise Unsupported(f"config.json asks for an unknown gating of experts: {ascii(function)[:40]}")
    return {"expert_gating_func": GATING[function]}


GATING = {"softmax": 1, "sigmoid": 2}
USUAL_ROPE_BASE = 10000.0  # ref: llama.cpp src/llama-model.cpp, load_hparams

# What nearly every decoder has; each is left out where the config says nothing of it.
DECODER: tuple[Computed, ...] = (
    Hparam("block_count", LAYER_COUNT, is_required=True),
    Hparam("context_length", ("max_position_embeddings", "n_ctx", "n_positions", "max_length", "max_sequence_length",
                              "model_max_length", "seq_length")),
    Hparam("embedding_length", ("hidden_size", "n_embd", "d_model", "dim", "n_embed")),
    Hparam("feed_forward_length", ("intermediate_size", "n_inner", "hidden_dim", "ffn_hidden_size")),
    Hparam("attention.head_count", ("num_attention_heads", "n_head", "n_heads")),
    Hparam("attention.head_count_kv", ("num_key_value_heads", "n_kv_heads")),
    rope,
    _norms,
    Hparam("expert_count", ("num_local_experts", "num_experts", "n_routed_experts")),
    Hparam("expert_used_count", ("num_experts_per_tok", "num_experts_per_token", "top_k_experts")),
    Hparam("expert_group_count", ("n_group",)),
    Hparam("expert_group_used_count", ("topk_group",)),
    _gating,
    Hparam("attention.key_length", ("head_dim",)),
    Hparam("attention.value_length", ("head_dim",)),
)  # fmt: skip
VOCAB_SIZE = Hparam("vocab_size", ("vocab_size",))


def sliding_layers(config: Config, period: int) -> list[bool]:
    """Return for each layer whether it sees a window only: as config.json lists them, else all but every `period`-th.

    Raises:
        Damaged: the list is not as long as the model.
        Unsupported: a layer is of another kind.
    """
    kinds = config.items("layer_types")
    period = config.integer("sliding_window_pattern", default=period)
    if not kinds:
        if period < 1:
            raise Damaged(f"config.json: sliding_window_pattern should be at least 1: {period}")
        return [(i + 1) % period != 0 for i in range(config.n_layers)]
    if len(kinds) != config.n_layers:
        raise Damaged(f"config.json lists {len(kinds)} layer_types for {config.n_layers} layers")
    for kind in kinds:
        if kind not in ("sliding_attention", "full_attention"):
            raise Unsupported(f"config.json has an unknown kind of layer: {ascii(kind)[:40]}")
    return [kind == "sliding_attention" for kind in kinds]


def sliding_window(period: int) -> Computed:
    """Write the window, and which layers have it if that is not what llama.cpp takes: all but every `period`-th."""

    def read(config: Config) -> Mapping[str, Value | None]:
        layers = sliding_layers(config, period)
        if config.is_null("sliding_window"):
            if any(layers):
                raise Unsupported("config.json has layers with a sliding window, and no sliding_window")
            return {}
        is_usual = layers == [(i + 1) % period != 0 for i in range(config.n_layers)]
        return {
            "attention.sliding_window": config.integer("sliding_window"),
            "attention.sliding_window_pattern": None if is_usual else layers,
        }

    return read


def kv_heads(config: Config) -> Mapping[str, Value | None]:
    """Say how many key and value heads there are where the config leaves it out: as many as query heads."""
    return {"attention.head_count_kv": config.n_kv_heads}


def head_width(config: Config) -> Mapping[str, Value | None]:
    """Say how wide a head is where the config leaves it out."""
    return {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}


def rope_dimensions(config: Config) -> Mapping[str, Value | None]:
    """Say how many dimensions of a head rope turns: all, or the part that the config names."""
    factor = config.rope().get("partial_rotary_factor", 1.0)
    if isinstance(factor, bool) or not isinstance(factor, int | float):
        raise Damaged(f"config.json: partial_rotary_factor should be a number: {ascii(factor)[:40]}")
    return {"rope.dimension_count": int(config.head_dim * factor)}
