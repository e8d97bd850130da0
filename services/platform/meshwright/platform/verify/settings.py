"""What `meshwright-verify` can be told."""

from __future__ import annotations

from typing import ClassVar

import pydantic
from pydantic import Field

from meshwright.core import errors
from meshwright.core.settings import Addresses, ServiceSettings


class VerifySettings(ServiceSettings):
    """Asks every part for its health over mutual TLS, and sends one object through the whole of configuration."""

    part: ClassVar[str] = "verify"
    summary: ClassVar[str] = __doc__ or ""

    namespace: str = Field(
        "meshwright-system", description="Kubernetes namespace of the platform; the object goes there."
    )
    parts: Addresses = Field(
        (),
        description="Parts to ask, as part=host:port separated by commas; every address of a host is asked.",
        validate_default=True,
    )
    seconds: float = Field(60.0, gt=0, description="How long one check may take, in seconds.")

    @pydantic.field_validator("parts")
    @classmethod
    def _parts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            part, _, address = entry.partition("=")
            host, _, port = address.rpartition(":")
            if not (part and host and port.isdigit()):
                raise ValueError(f"{entry!r} isn't part=host:port")
        return value

    def addresses(self) -> list[tuple[str, str, int]]:
        """Return each part with the host and port of its Service."""
        named = (entry.partition("=") for entry in self.parts)
        split = ((part, *address.rpartition(":")) for part, _, address in named)
        return [(part, host, int(port)) for part, host, _, port in split]

    def address(self, part: str) -> str:
        """Return host:port of a part that is asked; ConfigError when it isn't among them."""
        for name, host, port in self.addresses():
            if name == part:
                return f"{host}:{port}"
        raise errors.ConfigError(f"no {part} among them", field="parts", remedy=f"add {part}=host:port")
