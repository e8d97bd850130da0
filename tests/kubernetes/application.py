"""The application of the journeys, and what its pods see when they ask one another."""

from __future__ import annotations

import json
import string
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.images.build import name
from tests.kubernetes.node.cluster import Cluster

NAMESPACE = "shop"
TRUST_DOMAIN = "mesh.local"
HERE = Path(__file__).parent
# Name, account and label app, version, whom it asks.
WORKLOADS = (
    ("customer", "customer", "v1", None),
    ("mallory", "mallory", "v1", None),
    ("shop", "shop", "v1", "catalog"),
    ("catalog-v1", "catalog", "v1", "stock"),
    ("catalog-v2", "catalog", "v2", "stock"),
    ("stock", "stock", "v1", None),
)
START_SECONDS = 240


def spiffe_id(account: str) -> str:
    """Return the identity of an account's pods."""
    return f"spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{account}"


def filled(document: str, **values: object) -> str:
    """Return an object of the folder with its variables filled in."""
    return string.Template((HERE / "objects" / f"{document}.yaml").read_text()).substitute(values)


@dataclass(frozen=True)
class Answers:
    """What came of requests: how often each status and each version of catalog, and the last body of each status."""

    statuses: dict[int, int]
    versions: dict[str, int]
    bodies: dict[int, str]

    @classmethod
    def of(cls, printed: str) -> Answers:
        """Read what ask.py prints."""
        said = json.loads(printed)
        by_status = {
            kind: {int(status): value for status, value in said[kind].items()} for kind in ("statuses", "bodies")
        }
        return cls(by_status["statuses"], said["versions"], by_status["bodies"])

    def body(self) -> Any:
        """Return the last good answer."""
        return json.loads(self.bodies[200])


class Application:
    """The application under way."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def begin(self) -> None:
        """Start all workloads and wait until each is ready, which a pod is with its proxy."""
        workloads = [
            filled(
                "workload",
                name=workload,
                app=app,
                version=version,
                image=name("demo"),
                upstream=f', "--upstream={upstream}:80"' if upstream else "",
            )
            for workload, app, version, upstream in WORKLOADS
        ]
        self.apply(filled("application", workloads="".join(workloads)))
        for workload, *_ in WORKLOADS:
            self.cluster.kubectl(
                "rollout", "status", f"deployment/{workload}", f"--namespace={NAMESPACE}",
                f"--timeout={START_SECONDS}s", seconds=START_SECONDS + 10,
            )  # fmt: skip

    def apply(self, documents: str) -> None:
        """Apply objects."""
        self.cluster.kubectl("apply", "--filename=-", text=documents)

    def on_policy_outage(self, choice: str) -> None:
        """Say of all services what happens to requests that nobody decides in time: allow, or deny."""
        annotation = f"meshwright.io/on-policy-outage={choice}"
        self.cluster.kubectl("annotate", "services", "--all", "--overwrite", annotation, f"--namespace={NAMESPACE}")

    def ask(self, caller: str, path: str, count: int | str = 1, at_once: int = 1, **headers: str) -> Answers:
        """Ask the shop from a caller's pod."""
        return Answers.of(
            self.cluster.box.run(*self._words(caller, path, count, at_once, headers), text=_ASK, seconds=180)
        )

    @contextmanager
    def asking(self, caller: str, path: str, seconds: float, at_once: int = 2) -> Iterator[list[Answers]]:
        """Ask all the while the context lasts and for `seconds` at least; the list holds the answers afterwards."""
        words = self.cluster.box.command(*self._words(caller, path, f"{seconds}s", at_once, {}))
        pipe = subprocess.PIPE
        process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        answers: list[Answers] = []
        try:
            assert process.stdin is not None
            process.stdin.write(_ASK)
            process.stdin.close()
            process.stdin = None  # else communicate would flush it
            yield answers
            printed, errors = process.communicate(timeout=seconds + 60)
            assert process.returncode == 0, errors
            answers.append(Answers.of(printed))
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def _words(self, caller: str, path: str, count: object, at_once: int, headers: dict[str, str]) -> list[object]:
        pod = f"deployment/{caller}"
        given = [f"{key}={value}" for key, value in headers.items()]
        python = ["python", "-", f"http://shop{path}", count, at_once, *given]
        words = ("exec", "--stdin", f"--namespace={NAMESPACE}", pod, "--container=app", "--", *python)
        return self.cluster.kubectl_command(*words)

    def pod(self, workload: str) -> Any:
        """Return the one pod of a workload."""
        _, app, version, _ = next(each for each in WORKLOADS if each[0] == workload)
        selector = f"--selector=app={app},version={version}"
        items = self.cluster.get("pods", f"--namespace={NAMESPACE}", selector)["items"]
        alive = [item for item in items if "deletionTimestamp" not in item["metadata"]]
        assert len(alive) == 1, [item["metadata"]["name"] for item in alive]
        return alive[0]


_ASK = (HERE / "ask.py").read_text()
