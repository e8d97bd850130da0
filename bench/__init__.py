"""Benchmarks: each measures one of our parts and a floor or peer in the same run."""
