"""Projects for adapters to begin with: `meshwright adapter new`."""

from meshwright.mixer.scaffold.project import create
from meshwright.mixer.scaffold.samples import SAMPLES

__all__ = ["SAMPLES", "create"]
