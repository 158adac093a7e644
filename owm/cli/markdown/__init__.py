"""Markdown on a terminal, drawn while it is written."""
