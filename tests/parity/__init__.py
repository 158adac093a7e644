"""The proof of `owm convert`: its files against the reference converter's, their logits against transformers'."""
