"""The adapter SDK, one package a version. It imports neither servers nor the native module."""
