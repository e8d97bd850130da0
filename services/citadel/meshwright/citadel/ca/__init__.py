"""The mesh CA: strict requests in, short-lived SPIFFE certificates out. Pure: no sockets; time and store are given."""
