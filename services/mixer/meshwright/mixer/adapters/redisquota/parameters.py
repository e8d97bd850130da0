"""A handler's parameters, as the original had them, and `passwordFile`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from meshwright.mixer.config.fields import Model, Nanoseconds

_MILLISECOND = 1_000_000
_EXACT = 2**53  # Lua counts in doubles

Amount = Annotated[int, Field(ge=0, le=_EXACT)]


class Override(Model):
    """Another limit for requests whose dimensions have these values."""

    dimensions: Annotated[dict[str, str], Field(min_length=1, max_length=64)]
    max_amount: Amount


class Quota(Model):
    """`maxAmount` in every window of `validDuration`."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    max_amount: Amount
    valid_duration: Nanoseconds
    bucket_duration: Nanoseconds = 0
    rate_limit_algorithm: Literal["FIXED_WINDOW", "ROLLING_WINDOW"] = "FIXED_WINDOW"
    overrides: Annotated[list[Override], Field(max_length=1000)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _has_windows(self) -> Self:
        if self.valid_duration < _MILLISECOND:
            raise ValueError(f"quota {self.name}: validDuration must be 1ms or more")
        if self.rate_limit_algorithm == "ROLLING_WINDOW":
            if not _MILLISECOND <= self.bucket_duration < self.valid_duration:
                raise ValueError(
                    f"quota {self.name}: bucketDuration must be 1ms or more, and shorter than validDuration"
                )
            if self.valid_duration > 1000 * self.bucket_duration:
                raise ValueError(f"quota {self.name}: more than 1000 buckets; make bucketDuration longer")
        return self


class Parameters(Model):
    """Where the server is, and its quotas."""

    redis_server_url: Annotated[str, Field(min_length=1, max_length=1024)]
    """host:port, redis://, rediss:// or unix:// without a password."""
    connection_pool_size: Annotated[int, Field(ge=1, le=1000)] = 10
    password_file: str = ""
    quotas: Annotated[list[Quota], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _is_fit(self) -> Self:
        if "@" in self.redis_server_url:
            raise ValueError("redisServerUrl: configuration keeps no secrets; name the password's file in passwordFile")
        names = [quota.name for quota in self.quotas]
        if len(names) != len(set(names)):
            raise ValueError("quotas: two have the same name")
        return self

    @property
    def url(self) -> str:
        """For the client."""
        return self.redis_server_url if "://" in self.redis_server_url else f"redis://{self.redis_server_url}"
