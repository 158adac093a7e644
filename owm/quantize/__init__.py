"""Types for every tensor, by llama.cpp's own recipes."""
