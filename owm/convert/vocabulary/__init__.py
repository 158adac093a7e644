"""The tokenizer half of a conversion: a checkpoint's folder to the `tokenizer.*` metadata of a GGUF file.

Neither torch, transformers nor sentencepiece is needed; `tokenizers` is, for the ids of one text.
"""

from owm.convert.vocabulary.reading import TokenizerValue, Vocab, Vocabulary, read_vocabulary
from owm.convert.vocabulary.sampling_defaults import read_sampling_defaults

__all__ = ["TokenizerValue", "Vocab", "Vocabulary", "read_sampling_defaults", "read_vocabulary"]
