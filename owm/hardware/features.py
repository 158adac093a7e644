"""What of its processor a build of llama.cpp uses, and what it leaves unused."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

# ggml's name -> the kernel's. ref: ggml/src/ggml-cpu/ggml-cpu.cpp, ggml_backend_cpu_get_features; arch/*/cpufeatures.h
_FLAGS = {
    "SSE3": "pni", "SSSE3": "ssse3", "AVX": "avx", "AVX2": "avx2", "F16C": "f16c", "FMA": "fma", "BMI2": "bmi2",
    "AVX_VNNI": "avx_vnni", "AVX512": "avx512f", "AVX512_VBMI": "avx512vbmi", "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16", "AMX_INT8": "amx_int8", "NEON": "asimd", "FP16_VA": "asimdhp",
    "DOTPROD": "asimddp", "MATMUL_INT8": "i8mm", "SVE": "sve", "SME": "sme",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Features:
    """Features in ggml's words; `missing` ones the processor has and the build does not use."""

    used: tuple[str, ...]
    missing: tuple[str, ...]


def features(system_info: str, flags: Iterable[str]) -> Features:
    """Compare what llama.cpp says of its build with what the processor can do.

    Args:
        system_info: llama.cpp's line, `CPU : SSE3 = 1 | AVX = 1 | …`, which may go on with other devices.
        flags: of the processor, in the kernel's names; without them nothing is missing.
    """
    of_cpu = re.search(r"\bCPU : (.*?)(?=\b[A-Z]\w* : |$)", system_info, re.DOTALL)
    used = tuple(re.findall(r"(\w+) = [1-9]\d*", of_cpu[1] if of_cpu else system_info))
    has = set(flags)
    missing = tuple(name for name, flag in _FLAGS.items() if flag in has and name not in used)
    return Features(used, missing)
