"""A checkpoint as published, to a GGUF file: what changes and what stays."""
