"""What `meshwright demo` can be told beside what `up` can."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from meshwright.platform.up.settings import UpSettings


class DemoSettings(UpSettings):
    """One run of the demo."""

    mixers: int = Field(2, ge=2, le=8, description="Replicas of mixer; quotas are held across all.")
    once: bool = Field(False, description="End after the checks, with status 0 when none failed.")
    report: Path | None = Field(None, description="File for the results as JSON.")
