"""llama.cpp's own converter for an invented vocabulary: reference_converter.py TREE PRE ARGUMENTS

It looks the name of a BPE pre-tokenizer up by a hash over the ids that the published vocabulary gives, and refuses what
it does not find: here the name is PRE. Everything else is as `TREE/convert_hf_to_gguf.py ARGUMENTS` does it.
"""

import sys
from pathlib import Path


def main() -> None:
    """Convert."""
    tree, pre = Path(sys.argv[1]), sys.argv[2]
    sys.argv[1:3] = []
    sys.path[:0] = [str(tree), str(tree / "gguf-py")]
    import convert_hf_to_gguf
    from conversion.base import TextModel

    TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
    convert_hf_to_gguf.main()


if __name__ == "__main__":
    main()
