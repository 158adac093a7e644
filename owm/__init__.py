"""owm: open-weight models, from wherever they are published to an answer."""

__version__ = "0.1.0"
