"""The way of a record: out of the engine, into the work queue, to the adapters, and only then forgotten."""
