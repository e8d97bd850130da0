"""The Kubernetes API server, as far as the platform asks it: objects by path, and list + watch as a feed.

One decision to know: httpx (already a dependency) and plain dictionaries, no client library: what is used of the API
is a few kinds and verbs, and a generated client is a hundred times that.
"""

from meshwright.core.kubernetes.api import Api
from meshwright.core.kubernetes.cluster import Cluster, Server, in_cluster
from meshwright.core.kubernetes.follow import Object, follow, version
from meshwright.core.kubernetes.kubeconfig import Kubeconfig

__all__ = ["Api", "Cluster", "Kubeconfig", "Object", "Server", "follow", "in_cluster", "version"]
