"""access.smi-spec.io/v1alpha4 IdentityBinding: identities under one name, for TrafficTargets.

Schemes are alternatives (OR). The specification says that podLabelSelector and serviceAccount exclude one another; it
is enforced here.
"""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from meshwright.manager.model.document import Document, FieldError, Labels, Name, Strict

_IDENTITY = re.compile(r"(spiffe://)?[a-z0-9]([-a-z0-9._]*[a-z0-9])?(/[A-Za-z0-9._-]+)+")


def _identity(text: str) -> str:
    if len(text) > 2048 or not _IDENTITY.fullmatch(text):
        raise ValueError(f"{text!r} isn't a SPIFFE ID: write one such as spiffe://mesh.local/ns/default/sa/shop")
    return text


class PodLabelSelector(Strict):
    """Pods of the binding's namespace with all these labels."""

    match_labels: Annotated[Labels, Field(min_length=1)]


class Schemes(Strict):
    """Ways to name identities."""

    pod_label_selector: PodLabelSelector | None = None
    spiffe_identities: (
        Annotated[list[Annotated[str, AfterValidator(_identity)]], Field(min_length=1, max_length=64)] | None
    ) = None
    service_account: Name | None = None


class IdentityBindingSpec(Strict):
    """The identities."""

    schemes: Schemes


class IdentityBinding(Document):
    """Identities of one namespace."""

    spec: IdentityBindingSpec

    @model_validator(mode="after")
    def _exclusive(self) -> Self:
        schemes = self.spec.schemes
        if schemes.pod_label_selector is not None and schemes.service_account is not None:
            raise FieldError(
                "spec.schemes",
                "podLabelSelector and serviceAccount exclude one another: keep one, or make two bindings",
            )
        if schemes.pod_label_selector is None and schemes.service_account is None and not schemes.spiffe_identities:
            raise FieldError(
                "spec.schemes", "names no identity: write podLabelSelector, spiffeIdentities or serviceAccount"
            )
        return self
