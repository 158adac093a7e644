"""What quantizing cost: importance of columns, perplexity, divergence from the original."""
