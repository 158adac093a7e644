"""Which type a tensor gets in a converted file. ref: llama.cpp conversion/base.py, prepare_tensors"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from owm.pipeline.rows import Rows, n_rows

# What llama.cpp computes in float32 only, by the name in the model file.
_ALWAYS_F32 = re.compile(
    r"(blk\.\d+\.)?(ffn_gate_inp|ffn_gate_inp_shexp|position_embd|token_types|ssm_conv1d(_[qkv])?|shortconv\.conv"
    r"|altup_correct_coef|altup_predict_coef|indexer\.proj)\.weight"
)
FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32}


def own_type(tensors: Iterable[Rows]) -> str:
    """Return the type that most of a checkpoint's weights have; 8-bit floats become BF16."""
    sizes: Counter[str] = Counter()
    for rows in tensors:
        if len(rows.shape) > 1 and rows.dtype in ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"):
            sizes[rows.dtype] += n_rows(rows.shape) * rows.shape[-1]
    most = sizes.most_common(1)[0][0] if sizes else "F16"
    return {"F64": "F32", "F8_E4M3": "BF16", "F8_E5M2": "BF16"}.get(most, most)


def tensor_type(name: str, rows: Rows, wanted: str, overrides: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Return the type of a tensor in the model file, and the reason."""
    if rows.dtype == "MXFP4":
        return "MXFP4", "kept as published"
    if len(rows.shape) <= 1 or name.endswith("_norm.weight"):
        return "F32", "a vector or a norm"
    for pattern, type_name in overrides:
        if re.fullmatch(pattern, name):
            return type_name, "the architecture's"
    if not name.endswith(".weight") or _ALWAYS_F32.fullmatch(name):
        return "F32", "computed in float32"
    return wanted, "asked for"
