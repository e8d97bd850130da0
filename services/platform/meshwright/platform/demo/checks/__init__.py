"""The demo's checks, one promise a module; each returns what it measured."""
