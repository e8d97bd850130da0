"""Runs in a pod: asks the node's Workload API who it is, and prints what it was told as JSON.

python - SECONDS: until there is an identity, for so long. python - SECONDS next: also the certificate after that.
"""

import json
import os
import sys
import time

import grpc
from cryptography import x509

from meshwright.api.spiffe.workload import workload_pb2, workload_pb2_grpc

HEADER = (("workload.spiffe.io", "true"),)
AGAIN = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE)  # not yet known; the agent starts


def main(seconds, *words):
    """Ask until there is an identity, or the time is over."""
    end = time.monotonic() + float(seconds)
    told = {"uid": os.getuid()}
    with grpc.insecure_channel("unix:/run/meshwright/workload.sock") as channel:
        stub = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
        while True:
            left = end - time.monotonic()
            call = stub.FetchX509SVID(workload_pb2.X509SVIDRequest(), metadata=HEADER, timeout=max(left, 1.0))
            try:
                answers = [next(call) for _ in range(2 if words else 1)]
            except grpc.RpcError as error:
                told["refused"] = error.details()
                if error.code() not in AGAIN or left <= 0:
                    break
                time.sleep(0.1)
                continue
            call.cancel()
            told.pop("refused", None)
            told["ids"] = [svid.spiffe_id for svid in answers[-1].svids]
            leaves = [x509.load_der_x509_certificate(answer.svids[0].x509_svid) for answer in answers]
            leaves[-1].verify_directly_issued_by(x509.load_der_x509_certificate(answers[-1].svids[0].bundle))
            told["serials"] = [str(leaf.serial_number) for leaf in leaves]
            break
    print(json.dumps(told))


main(*sys.argv[1:])
