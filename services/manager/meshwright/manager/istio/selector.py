"""Which workloads an object of Istio's security and telemetry APIs is for.

One decision to know: `targetRefs` is refused. It names waypoints, gateways and services as objects, and to leave it out
would make an object that is meant for one thing one for the whole namespace.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from meshwright.manager.model.document import Labels, Strict


class WorkloadSelector(Strict):
    """Workloads with these labels; none: all."""

    match_labels: Labels = Field(default_factory=dict)


class Selecting(Strict):
    """Without a selector all workloads of the namespace; in the mesh's root namespace, those of every namespace."""

    selector: WorkloadSelector | None = None
    target_ref: Any = None
    target_refs: Any = None

    @model_validator(mode="after")
    def _by_labels(self) -> Selecting:
        if self.target_ref is not None or self.target_refs is not None:
            raise ValueError(
                "targetRefs isn't known to this mesh: write selector.matchLabels with the workloads' labels"
            )
        return self

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Return the labels, sorted."""
        return tuple(sorted(self.selector.match_labels.items())) if self.selector else ()
