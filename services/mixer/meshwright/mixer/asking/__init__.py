"""The host of adapters: their own loop, their handlers' lives, and the questions and batches that they get."""
