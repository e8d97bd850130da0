"""The file that says which physical functions the forwarder has, and what their virtual ones are for: docs/sriov.md."""

from __future__ import annotations

from pathlib import Path

import pydantic
import yaml
from pydantic import alias_generators

from meshwright.core import errors
from meshwright.dataplane.sriov import Served


class _Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", alias_generator=alias_generators.to_camel)


class _PhysicalFunction(_Model):
    service_domains: tuple[str, ...] = pydantic.Field(min_length=1)
    capabilities: tuple[str, ...] = pydantic.Field(min_length=1)
    virtual_functions: int = pydantic.Field(gt=0)
    vf_kernel_driver: str | None = None

    @pydantic.field_validator("service_domains", "capabilities")
    @classmethod
    def _named(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not name or "/" in name:
                raise ValueError(f"{name!r} isn't a name without /")
        return names


class _File(_Model):
    physical_functions: dict[str, _PhysicalFunction]


def load(path: Path) -> list[Served]:
    """Read the file; raise ConfigError that names what is wrong."""
    try:
        # Everything is text first: to YAML 1.1 the address 0000:01:00.0 is a number to the base of sixty.
        content = yaml.load(path.read_text(), Loader=yaml.BaseLoader)
        file = _File.model_validate(content)
    except OSError as error:
        raise errors.ConfigError(f"can't read {path}: {error.strerror}", field="sriov") from error
    except yaml.YAMLError as error:
        raise errors.ConfigError(f"{path} isn't YAML: {error}", field="sriov") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise errors.ConfigError(f"{path}: {place}: {first['msg']}", field="sriov") from error
    return [
        Served(
            device,
            function.virtual_functions,
            [f"{domain}/{capability}" for domain in function.service_domains for capability in function.capabilities],
            function.vf_kernel_driver,
        )
        for device, function in file.physical_functions.items()
    ]
