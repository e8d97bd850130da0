"""The `meshwright` command: the platform on one machine, its demo, its command line and a small trace collector."""
