"""The control plane: etcd, API server, controllers, scheduler."""

from __future__ import annotations

from tests.box import Box
from tests.kubernetes.node.place import ADDRESS, API, ISSUER, SERVICES, Place

ETCD = "http://127.0.0.1:2379"
ETCD_PEER = "http://127.0.0.1:2380"


def begin_api(box: Box, place: Place) -> None:
    """Start etcd and the API server, which waits for etcd itself."""
    box.start(
        "etcd",
        place.program("etcd"),
        "--data-dir=/var/lib/etcd",
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        f"--listen-peer-urls={ETCD_PEER}",
        f"--initial-advertise-peer-urls={ETCD_PEER}",
        f"--initial-cluster=default={ETCD_PEER}",
        "--unsafe-no-fsync",  # what is lost with the machine is a trial
        "--log-level=warn",
    )
    box.start(
        "kube-apiserver",
        place.program("kube-apiserver"),
        f"--etcd-servers={ETCD}",
        f"--bind-address={ADDRESS}",
        f"--advertise-address={ADDRESS}",
        f"--service-cluster-ip-range={SERVICES}",
        f"--tls-cert-file={place.certificate('apiserver')}",
        f"--tls-private-key-file={place.key('apiserver')}",
        f"--client-ca-file={place.certificate('ca')}",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={place.folder / 'pki' / 'tokens.pub'}",
        f"--service-account-signing-key-file={place.key('tokens')}",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        f"--kubelet-client-certificate={place.certificate('admin')}",
        f"--kubelet-client-key={place.key('admin')}",
        f"--kubelet-certificate-authority={place.certificate('ca')}",
        "--kubelet-preferred-address-types=InternalIP",
        "--profiling=false",
    )


def begin_controllers(box: Box, place: Place) -> None:
    """Start controllers and scheduler; they want an API server that answers."""
    box.start(
        "kube-controller-manager",
        place.program("kube-controller-manager"),
        f"--kubeconfig={place.kubeconfig('controllers')}",
        f"--root-ca-file={place.certificate('ca')}",
        f"--service-account-private-key-file={place.key('tokens')}",
        f"--cluster-signing-cert-file={place.certificate('ca')}",
        f"--cluster-signing-key-file={place.key('ca')}",
        "--use-service-account-credentials=true",  # else the Node and RBAC authorizers refuse some controllers
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    )
    box.start(
        "kube-scheduler",
        place.program("kube-scheduler"),
        f"--kubeconfig={place.kubeconfig('scheduler')}",
        f"--authentication-kubeconfig={place.kubeconfig('scheduler')}",
        f"--authorization-kubeconfig={place.kubeconfig('scheduler')}",
        f"--master={API}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    )
