"""config.json as transformers 4 wrote it, from what transformers 5 writes."""

from parity.case import Config

_PUBLISHED_TYPE_KEY = {"longrope", "su", "linear", "dynamic"}  # `type`, before it was called `rope_type`


def to_old_dialect(config: Config) -> Config:
    """Return the configuration with rope_theta, rope_scaling and torch_dtype on top, nested configs too."""
    old = {key: to_old_dialect(value) if key.endswith("_config") else value for key, value in config.items()}
    if "dtype" in old:
        old["torch_dtype"] = old.pop("dtype")
    if "transformers_version" in old:
        old["transformers_version"] = "4.45.2"
    rope = old.pop("rope_parameters", None)
    if rope and isinstance(next(iter(rope.values())), dict):  # one per kind of layer
        old["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    if rope:
        scaling = dict(rope)
        for key in ("rope_theta", "partial_rotary_factor"):
            if key in scaling:
                old[key] = scaling.pop(key)
        kind = scaling.pop("rope_type", "default")
        is_newer = old.get("model_type", "").startswith("gemma3")
        key = "type" if kind in _PUBLISHED_TYPE_KEY and not is_newer else "rope_type"
        old["rope_scaling"] = None if kind == "default" else {key: kind, **scaling}
    # These had it from the beginning.
    kinds = None if old.get("model_type") in ("granitemoehybrid", "exaone4") else old.pop("layer_types", None)
    if kinds and old.get("model_type", "").startswith(("gemma3", "cohere2")):
        old["sliding_window_pattern"] = kinds.index("full_attention") + 1
    return old
