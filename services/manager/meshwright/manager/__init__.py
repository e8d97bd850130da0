"""The manager: takes configuration, keeps it, and distributes it to proxies as xDS resources."""
