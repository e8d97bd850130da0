"""Fixtures of the images' tests."""

from tests.images.fixtures import daemon, images

__all__ = ["daemon", "images"]
