"""The forwarder's agent: takes part in the network service API and drives the Rust forwarder."""
