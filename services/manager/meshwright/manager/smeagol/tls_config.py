"""smi.meshwright.io/v1beta1 TLSConfig, in the draft's text MutualTLS: workloads that are called by TLS only."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from meshwright.manager.model.document import Document, Labels, Strict


class Selector(Strict):
    """Workloads of the object's namespace with all these labels."""

    match_labels: Annotated[Labels, Field(min_length=1)]


class TLSConfigSpec(Strict):
    """Which workloads, and the names of their certificates."""

    subject_names: Annotated[list[Annotated[str, Field(min_length=1, max_length=253)]], Field(max_length=64)] = Field(
        default_factory=list
    )
    selector: Selector


class TLSConfig(Document):
    """Workloads whose callers must show a certificate of the mesh."""

    spec: TLSConfigSpec
