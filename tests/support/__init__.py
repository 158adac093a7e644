"""What the tests stand on: servers that misbehave on request, tiny models, and commands run as real processes."""
