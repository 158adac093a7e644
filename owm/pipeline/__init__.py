"""One road for bytes: lazy tensors, a plan made from headers alone, one streaming writer."""
