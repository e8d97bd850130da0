"""What runs beside an application in its pod: redirection, the proxy with its probes, and network services.

One decision to know: `redirect` and `run` load nothing but the standard library, because they start in every pod and
one of them stays. What needs more (gRPC probes) is loaded when it is first asked for.
"""
