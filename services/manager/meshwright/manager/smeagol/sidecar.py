"""smi.meshwright.io/v1beta1 Sidecar, once Monitor: workloads whose traffic is measured, and labels of their series."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from meshwright.manager.model.document import Document, Strict
from meshwright.manager.smeagol.tls_config import Selector


class SidecarSpec(Strict):
    """Which workloads, and what every series of theirs says."""

    selector: Selector
    metric_labels: Annotated[dict[str, Annotated[str, Field(max_length=256)]], Field(max_length=32)] = Field(
        default_factory=dict
    )


class Sidecar(Document):
    """Workloads that are measured."""

    spec: SidecarSpec
