"""A small OTLP collector: keeps the last traces, logs and metric points for queries, and forwards to the user's own."""
