"""Mixer's configuration: documents in, one compiled policy out."""
