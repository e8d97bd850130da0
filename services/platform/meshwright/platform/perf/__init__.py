"""Performance: tests and results in SMP, measured with our own load generator, compared and shown."""
