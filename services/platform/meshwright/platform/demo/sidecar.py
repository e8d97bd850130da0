"""A workload's sidecar: the unmodified Envoy of the wheel with the bootstrap that the manager's package makes."""

from __future__ import annotations

import json
from pathlib import Path

from meshwright.manager.xds.bootstrap import ARGUMENTS, bootstrap
from meshwright.platform.demo.workloads import NAMESPACE, Workload
from meshwright.platform.up import servers
from meshwright.platform.up.app import Platform


def write_bootstrap(platform: Platform, workload: Workload) -> Path:
    """Write Envoy's bootstrap and return the file."""
    content = bootstrap(
        namespace=NAMESPACE,
        workload=workload.name,
        managers=[platform.ports.manager.address],
        mixers=[port.address for port in platform.ports.mixers],
        collector=platform.ports.collector.address,
        agent_socket=str(platform.layout.socket("agent")),
        admin_socket=str(workload.envoy_admin(platform.layout)),
        trust_domain=platform.settings.trust_domain,
    )
    path = platform.layout.run / f"{workload.name}-envoy.json"
    path.write_text(json.dumps(content, indent=1))
    return path


def argv(config: Path) -> tuple[str, ...]:
    """Return Envoy's command line; one worker is enough for a demo."""
    return (servers.envoy(), "-c", str(config), "--concurrency", "1", "--log-level", "warning", *ARGUMENTS)
