"""Writes a new adapter's project: everything in it runs as it is, and is the author's from then on."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from meshwright.core.errors import ConfigError
from meshwright.mixer.scaffold.samples import CHECK, GENERATOR, QUOTA, REPORT, SAMPLES

_USES = {
    CHECK: ("CheckResult", "Host"),
    QUOTA: ("Charge", "Host", "QuotaResult"),
    REPORT: ("Entry", "Host"),
    GENERATOR: ("Host", "Value"),
}
"""What an adapter imports of the SDK beside its instance's class."""
_FUNCTIONS = {CHECK: (), QUOTA: (), REPORT: ("blocking",), GENERATOR: ()}
_PARTS = ("Subject",)  # of instances, in tests


def create(folder: Path, name: str, template: str) -> list[Path]:
    """Write the project `name` into `folder`, and return its files; ConfigError when that can't be."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > 60:
        raise ConfigError(f"{name!r} can't be an adapter's name", field="NAME", remedy="use a-z, 0-9 and single -")
    sample = SAMPLES.get(template)
    if sample is None:
        raise ConfigError(
            f"there is no template {template!r}", field="--template", remedy=f"use one of {', '.join(SAMPLES)}"
        )
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} isn't empty", field="--output", remedy="name a folder that doesn't exist yet")
    package = name.replace("-", "_")
    words = {
        "name": name,
        "package": package,
        "class": "".join(part.title() for part in name.split("-")),
        "template": template,
        "instance": sample.instance,
        "uses": ", ".join([*sorted({*_USES[sample.kind], sample.instance}), *_FUNCTIONS[sample.kind]]),
        "test_uses": ", ".join(sorted({"Code", sample.instance, *(each for each in _PARTS if each in sample.made)})),
        "spec": sample.spec if sample.spec.startswith("\n") else f" {sample.spec}",
        "value": sample.value,
        "line": sample.line,
        "denied": sample.denied,
        "made_denied": sample.made.replace("{value}", sample.denied),
        "made_allowed": sample.made.replace("{value}", "ann"),
    }
    files = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{package}/__init__.py": "init.py",
        f"{package}/adapter.py": f"{sample.kind}.py",
        f"{package}/py.typed": "",
        f"tests/test_{package}.py": f"{sample.kind}_test.py",
        f"deploy/{name}.yaml": f"{sample.kind}.yaml",
    }
    written = []
    for target, source in files.items():
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_filled(source, words) if source else "")
        written.append(path)
    return written


def _filled(source: str, words: dict[str, str]) -> str:
    text = resources.files("meshwright.mixer.scaffold").joinpath("files", f"{source}.template").read_text()
    return re.sub(r"\{\{(\w+)\}\}", lambda found: words[found[1]], text)
