"""What makes a machine a node: kubelet, and kube-proxy with nftables."""

from __future__ import annotations

from tests.box import Box
from tests.kubernetes.node.place import ADDRESS, CONTAINERD, DOMAIN, NAME, PODS, Place

HEALTH = "127.0.0.1:10256"


def begin(box: Box, place: Place) -> None:
    """Start both."""
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{place.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "address": ADDRESS,
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(place.certificate("ca"))},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(place.certificate("kubelet")),
        "tlsPrivateKeyFile": str(place.key("kubelet")),
        "clusterDNS": [ADDRESS],
        "clusterDomain": DOMAIN,
        "resolvConf": str(place.write("resolv.conf", f"nameserver {ADDRESS}\n")),
        # The machine's disk is others' too: nothing is thrown away or refused because it is nearly full.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "serializeImagePulls": False,
        "syncFrequency": "10s",  # how long a pod may be behind its Secrets and ConfigMaps
    }
    box.start(
        "kubelet",
        place.program("kubelet"),
        f"--config={place.write('kubelet.json', kubelet)}",
        f"--kubeconfig={place.kubeconfig('kubelet')}",
        f"--hostname-override={NAME}",
        f"--node-ip={ADDRESS}",
    )
    proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(place.kubeconfig("proxy"))},
        "hostnameOverride": NAME,
        "clusterCIDR": PODS,
        "bindAddress": "127.0.0.1",
        "healthzBindAddress": HEALTH,
        "metricsBindAddress": "127.0.0.1:10249",
        # These are the machine's, not the network namespace's: they are left as they are.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    box.start("kube-proxy", place.program("kube-proxy"), f"--config={place.write('kube-proxy.json', proxy)}")
