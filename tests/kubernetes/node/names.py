"""The cluster's names: CoreDNS, on the node's address."""

from __future__ import annotations

from tests.box import Box
from tests.kubernetes.node.place import ADDRESS, API, DOMAIN, Place

READY = f"{ADDRESS}:8181"
QUERY = f"import urllib.request as r; print(r.urlopen('http://{READY}/ready', timeout=5).status)"


def begin(box: Box, place: Place) -> None:
    """Start CoreDNS. A name that isn't the cluster's doesn't exist: nothing here reaches another network."""
    configuration = f""".:53 {{
  errors
  ready {READY}
  cache 5
  kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
    endpoint {API}
    kubeconfig {place.kubeconfig("dns")} node
    pods insecure
  }}
}}
"""
    box.start("coredns", place.program("coredns"), "-conf", place.write("Corefile", configuration))
