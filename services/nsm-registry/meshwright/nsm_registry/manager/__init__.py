"""nsmgr: the network service manager of one node, between its clients, its forwarder and its endpoints."""
