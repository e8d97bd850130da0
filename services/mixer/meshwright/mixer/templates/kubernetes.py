"""Template kubernetes: from addresses and uids of pods to what the cluster knows of them, as attributes."""

from __future__ import annotations

from types import MappingProxyType

from meshwright.mixer.cexl.types import ValueType
from meshwright.mixer.templates.template import Template, Variety, one, text

_SIDES = {
    "pod_uid": ValueType.STRING,
    "pod_ip": ValueType.IP_ADDRESS,
    "pod_name": ValueType.STRING,
    "labels": ValueType.STRING_MAP,
    "namespace": ValueType.STRING,
    "service_account_name": ValueType.STRING,
    "host_ip": ValueType.IP_ADDRESS,
    "workload_uid": ValueType.STRING,
    "workload_name": ValueType.STRING,
    "workload_namespace": ValueType.STRING,
    "owner": ValueType.STRING,
}

TEMPLATE = Template(
    "kubernetes",
    Variety.ATTRIBUTE_GENERATOR,
    (
        *text("source_uid"),
        one("source_ip", ValueType.IP_ADDRESS),
        *text("destination_uid"),
        one("destination_ip", ValueType.IP_ADDRESS),
        one("destination_port", ValueType.INT64),
    ),
    outputs=MappingProxyType(
        {
            **{f"{side}_{name}": kind for side in ("source", "destination") for name, kind in _SIDES.items()},
            "destination_container_name": ValueType.STRING,
        }
    ),
)
