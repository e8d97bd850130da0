"""Parameters of handlers of `statsd` and `dogstatsd`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from meshwright.mixer.adapters.address import Address
from meshwright.mixer.adapters.statsd.name_template import NameTemplate
from meshwright.mixer.config.fields import Model, Nanoseconds

Kind = Literal["COUNTER", "GAUGE", "DISTRIBUTION"]


Rate = Annotated[float, Field(gt=0, le=1, strict=False)]
Bytes = Annotated[int, Field(ge=64, le=65507)]


class StatsdMetric(Model):
    """How an instance is sent. Without `nameTemplate` the metric has the instance's name."""

    type: Kind = "COUNTER"
    name_template: Annotated[str, Field(max_length=512)] = ""

    @field_validator("name_template")
    @classmethod
    def _readable(cls, value: str) -> str:
        NameTemplate(value)
        return value


class StatsdParameters(Model):
    """As the original's. `flushDuration` is accepted and has no effect: batches come as the queue has them."""

    address: Address = "localhost:8125"
    prefix: Annotated[str, Field(max_length=255)] = ""
    flush_duration: Nanoseconds = 300_000_000
    flush_bytes: Bytes = 512
    sampling_rate: Rate = 1.0
    metrics: Annotated[dict[str, StatsdMetric], Field(max_length=1000)] = Field(default_factory=dict)


class DogstatsdMetric(Model):
    """How an instance is sent; its dimensions become tags beside `tags`."""

    type: Kind = "COUNTER"
    name: Annotated[str, Field(max_length=200)] = ""
    tags: Annotated[dict[str, str], Field(max_length=64)] = Field(default_factory=dict)


class DogstatsdParameters(Model):
    """As the original's. `bufferLength` is accepted and has no effect: a batch takes as few datagrams as fit."""

    address: Address = "localhost:8125"
    prefix: Annotated[str, Field(max_length=255)] = ""
    buffer_length: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    global_tags: Annotated[dict[str, str], Field(max_length=64)] = Field(default_factory=dict)
    sample_rate: Rate = 1.0
    metrics: Annotated[dict[str, DogstatsdMetric], Field(max_length=1000)] = Field(default_factory=dict)
    datagram_bytes: Bytes = 1432
