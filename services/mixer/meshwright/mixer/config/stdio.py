"""Parameters of the stdio adapter, as in the original: instances as lines, where they go and how grave they are.

The adapter runs in Rust behind the queue of records.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.mixer.config.fields import Model

Level = Literal["INFO", "WARNING", "ERROR"]

_LEVELS = {
    "INFO": pb.Handler.Stdio.INFO,
    "WARNING": pb.Handler.Stdio.WARNING,
    "ERROR": pb.Handler.Stdio.ERROR,
}
_STREAMS = {
    "STDOUT": pb.Handler.Stdio.STDOUT,
    "STDERR": pb.Handler.Stdio.STDERR,
    "FILE": pb.Handler.Stdio.FILE,
    "ROTATED_FILE": pb.Handler.Stdio.ROTATED_FILE,
}
_SEVERITIES: dict[str, Level] = {
    "info": "INFO",
    "warning": "WARNING",
    "warn": "WARNING",
    "error": "ERROR",
    "err": "ERROR",
    "fatal": "ERROR",
    "critical": "ERROR",
}


class Stdio(Model):
    """Lines on a stream or in a file; `severityLevels` says what level an entry's severity is."""

    log_stream: Literal["STDOUT", "STDERR", "FILE", "ROTATED_FILE"] = "STDOUT"
    severity_levels: Annotated[dict[str, Level], Field(max_length=256)] = Field(default_factory=dict)
    metric_level: Level = "INFO"
    output_as_json: bool = False
    output_level: Level = "INFO"
    output_path: Annotated[str, Field(max_length=4096)] = ""
    max_megabytes_before_rotation: Annotated[int, Field(ge=0, le=1 << 20)] = 100
    max_days_before_rotation: Annotated[int, Field(ge=0, le=3650)] = 30
    max_rotated_files: Annotated[int, Field(ge=0, le=100_000)] = 1000

    @model_validator(mode="after")
    def _has_a_path_for_a_file(self) -> Self:
        is_file = self.log_stream.endswith("FILE")
        if is_file != bool(self.output_path):
            raise ValueError(
                "outputPath: needed for FILE and ROTATED_FILE, and for nothing else (set logStream, or remove it)"
            )
        path = PurePosixPath(self.output_path)
        if is_file and (not path.is_absolute() or ".." in path.parts or "\0" in self.output_path):
            raise ValueError("outputPath: write it from / on, without ..")
        return self

    def compiled(self) -> pb.Handler.Stdio:
        """The handler's part of the policy."""
        stdio = pb.Handler.Stdio(
            stream=_STREAMS[self.log_stream],
            path=self.output_path,
            json=self.output_as_json,
            least=_LEVELS[self.output_level],
            metric_level=_LEVELS[self.metric_level],
            rotate_bytes=self.max_megabytes_before_rotation << 20,
            rotate_days=self.max_days_before_rotation,
            keep_files=self.max_rotated_files,
        )
        given = {severity.lower(): level for severity, level in self.severity_levels.items()}
        for severity, level in {**_SEVERITIES, **given}.items():
            stdio.severities[severity] = _LEVELS[level]
        return stdio
