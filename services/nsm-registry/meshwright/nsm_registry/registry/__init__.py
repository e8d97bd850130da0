"""The registry's parts: what is kept, how it is found, and the chain that a registration passes, one element a file."""
