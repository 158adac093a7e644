"""Models that other tools keep on this machine: where they lie and what they are called, one small module a tool.

Nothing here reads a model's bytes or writes anything; `owm.library.importing` checks and registers what is found.
"""
