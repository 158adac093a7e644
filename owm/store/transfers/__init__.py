"""How the bytes of one file come here. The door to it is `owm.store.download`."""
