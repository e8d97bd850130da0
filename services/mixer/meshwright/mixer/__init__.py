"""Mixer: policy, quota and telemetry. Python compiles rules, Rust decides requests, adapters take records."""
