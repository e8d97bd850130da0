"""`meshwright demo`: the platform, a small application on it, and checks of what was promised, each measured."""
