"""All specs and bindings of a configuration, asked for one service at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from meshwright.mixer.specs.api_spec import AttributeValue, HttpApiSpec, HttpApiSpecBinding
from meshwright.mixer.specs.quota_spec import QuotaSpec, QuotaSpecBinding
from meshwright.mixer.specs.service import Service, SpecReference

S = TypeVar("S")
_Place = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True)
class ServiceSpecs:
    """What applies to one service, in the order of the bindings' names."""

    quota_specs: tuple[QuotaSpec, ...] = ()
    api_specs: tuple[HttpApiSpec, ...] = ()

    def quotas(self, attributes: Mapping[str, Any]) -> dict[str, int]:
        """What a request with these attributes is charged: amounts by quota."""
        charged: dict[str, int] = {}
        for spec in self.quota_specs:
            for name, amount in spec.quotas(attributes).items():
                charged[name] = charged.get(name, 0) + amount
        return charged

    def attributes(self, method: str, path: str) -> dict[str, AttributeValue]:
        """What the API calls a request (`api.operation` and the like)."""
        found: dict[str, AttributeValue] = {}
        for spec in self.api_specs:
            found.update(spec.attributes_of(method, path))
        return found

    def api_key(self, path: str, headers: Mapping[str, str]) -> str | None:
        """The caller's key (`request.api_key`); `headers` have names in lower case."""
        keys = (spec.api_key(path, headers) for spec in self.api_specs)
        return next((key for key in keys if key is not None), None)


class ClientSpecs:
    """Which specs are bound to which services; meshwright.mixer.config.client_specs makes it of documents."""

    def __init__(
        self,
        quota_specs: Mapping[_Place, QuotaSpec],
        quota_bindings: Mapping[_Place, QuotaSpecBinding],
        api_specs: Mapping[_Place, HttpApiSpec],
        api_bindings: Mapping[_Place, HttpApiSpecBinding],
    ) -> None:
        self._quota_specs, self._quota_bindings = quota_specs, quota_bindings
        self._api_specs, self._api_bindings = api_specs, api_bindings

    def service(self, host: str, labels: Mapping[str, str] | None = None) -> ServiceSpecs:
        """What applies to the service with this whole name (`shop.demo.svc.cluster.local`) and these labels."""
        quotas = [
            spec
            for place, binding in sorted(self._quota_bindings.items())
            for spec in _bound(place, binding.services, binding.quota_specs, self._quota_specs, host, labels or {})
        ]
        apis = [
            spec
            for place, binding in sorted(self._api_bindings.items())
            for spec in _bound(place, binding.services, binding.api_specs, self._api_specs, host, labels or {})
        ]
        return ServiceSpecs(tuple(quotas), tuple(apis))


def _bound(
    place: _Place,
    services: Iterable[Service],
    references: Iterable[SpecReference],
    specs: Mapping[_Place, S],
    host: str,
    labels: Mapping[str, str],
) -> Iterable[S]:
    home = place[0]
    if any(service.means(host, labels, home) for service in services):
        for reference in references:
            spec = specs.get((reference.namespace or home, reference.name))
            if spec is not None:
                yield spec
