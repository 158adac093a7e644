"""Conversations with a model: a tree of turns, kept on disk as it grows, and the folder of all of them."""
