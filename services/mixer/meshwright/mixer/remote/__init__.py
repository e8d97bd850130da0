"""Adapters in other processes, over gRPC as the original Mixer asked them.

Python reads the descriptor sets of their templates and compiles how an evaluated instance becomes a request's bytes;
Rust (`dataplane/crates/checks`) asks. Reports go from here, behind the work queue.
"""
