"""The infrastructure CA: certificates for etcd, NATS and their clients, which exist before the mesh CA can."""
