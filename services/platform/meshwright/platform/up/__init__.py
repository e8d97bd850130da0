"""`meshwright up`: every part of the platform on one machine, started, watched and stopped together."""
