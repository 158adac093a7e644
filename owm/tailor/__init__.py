"""Types chosen for a size, by what the model loses."""
