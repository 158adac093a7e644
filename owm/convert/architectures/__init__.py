"""Architectures, one file a family, entries only."""
