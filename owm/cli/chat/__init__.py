"""`owm chat`: the conversation at a terminal, or in lines."""
