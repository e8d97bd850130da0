"""The configuration API: whole requests are judged, then committed in one revision or not at all."""
