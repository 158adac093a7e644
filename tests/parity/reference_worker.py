"""Worker: llama.cpp's own converter, imported once from its source tree: reference_worker TREE."""

import runpy
import sys
from pathlib import Path
from typing import Any

from parity.worker import Request, serve

TREE = Path(sys.argv[1])
sys.path[:0] = [str(TREE), str(TREE / "gguf-py")]


def answer(request: Request) -> dict[str, Any]:
    """Convert a folder as `convert_hf_to_gguf.py FOLDER --outfile TO --outtype TYPE` does; an adapter's with a base."""
    if "base" in request:
        sys.argv[1:] = [request["folder"], "--base", request["base"], "--outfile", request["to"]]
        sys.argv += ["--outtype", request["type"]]
        runpy.run_path(str(TREE / "convert_lora_to_gguf.py"), run_name="__main__")
        return {}
    import convert_hf_to_gguf
    from conversion.base import TextModel

    # The name of a BPE pre-tokenizer is looked up by a hash over the ids of the published vocabulary: tiny ones have
    # another hash. owm is asked for the name of the tiny vocabulary in the same way, see `converting`.
    TextModel.get_vocab_base_pre = lambda self, tokenizer: request["pre"]
    sys.argv[1:] = [request["folder"], "--outfile", request["to"], "--outtype", request["type"]]
    convert_hf_to_gguf.main()
    return {}


if __name__ == "__main__":
    serve(answer)
