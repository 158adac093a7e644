"""Many prompts through one model: rows in, answers out, nothing lost on the way."""
