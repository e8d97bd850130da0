"""Entry point of `meshwright`: which commands there are and where they live."""

from __future__ import annotations

import typer

from meshwright.platform.cli.lazy import Lazy, LazyGroup

_MANAGER = "meshwright.manager.cli:app"


class Commands(LazyGroup):
    """The top level."""

    table = {  # noqa: RUF012 - typer instantiates the class
        "up": Lazy("Run the platform on this machine.", "meshwright.platform.cli.up:app"),
        "demo": Lazy("Run the platform with an application and check it.", "meshwright.platform.cli.demo:app"),
        "apply": Lazy("Apply configuration from files or folders of YAML.", _MANAGER, "apply"),
        "get": Lazy("Show configuration.", _MANAGER, "get"),
        "delete": Lazy("Delete configuration.", _MANAGER, "delete"),
        "status": Lazy("Show each proxy with the revision it has acknowledged.", _MANAGER, "status"),
        "wait": Lazy("Wait until every proxy has a revision, or something is true of objects.", _MANAGER, "wait"),
        "history": Lazy("Show who changed what, when and why.", _MANAGER, "history"),
        "diff": Lazy("Show how objects differ between two revisions.", _MANAGER, "diff"),
        "rollback": Lazy("Make every object what it was at a revision.", _MANAGER, "rollback"),
        "watch": Lazy("Show each change of the configuration as it comes.", _MANAGER, "watch"),
        "analyze": Lazy("Find what is probably wrong in files or in the mesh.", _MANAGER, "analyze"),
        "explain": Lazy("Say which route takes a request, and why.", _MANAGER, "explain"),
        "inject": Lazy("Put sidecars into Kubernetes manifests.", "meshwright.manager.inject.command:app", "inject"),
        "policy": Lazy("Compile and test policies.", "meshwright.mixer.authoring.cli:app"),
        "mixer": Lazy("Ask mixer for decisions.", "meshwright.mixer.cli:app"),
        "adapter": Lazy("Write adapters of mixer, and show which there are.", "meshwright.mixer.adapter_cli:app"),
        "perf": Lazy("Measure performance, in SMP.", "meshwright.platform.cli.perf:app"),
        "proto": Lazy("Show where the proto files for other languages are.", "meshwright.platform.cli.proto:app"),
        "version": Lazy("Print the version.", "meshwright.platform.cli.version:app"),
    }  # fmt: skip


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False)


@app.callback()
def _root() -> None:
    """One identity, one policy and one trace for HTTP services and network functions."""


def main() -> None:
    """Run the command line."""
    app(prog_name="meshwright")


if __name__ == "__main__":
    main()
