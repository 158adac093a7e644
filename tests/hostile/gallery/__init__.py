"""The gallery of hostile files: one small function each, made when asked for, so that none lies in the repository."""

from hostile.gallery import adapters, checkpoints, container, hyperparameters, tensors, vocabularies
from hostile.gallery.exhibit import DEADLY, EXHIBITS, FATES, Exhibit

__all__ = [
    "DEADLY", "EXHIBITS", "FATES", "Exhibit", "adapters", "checkpoints", "container", "hyperparameters", "tensors",
    "vocabularies",
]  # fmt: skip
