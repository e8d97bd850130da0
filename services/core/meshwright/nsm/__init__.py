"""The Network Service Mesh SDK: what a client, an endpoint, a manager and a forwarder share.

Every hop is one ordered list of elements (`chain`); a client needs only `client`, an endpoint only `endpoint`.
"""
