"""The commands as a person types them, against a manager in this process."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
import yaml
from managers import running
from meshes import SHOP, SPLIT
from typer.testing import CliRunner

from meshwright.manager.cli import app
from pki import Pki


class Shell:
    """Runs commands with a data directory as `meshwright up` leaves it, in threads: each has a loop of its own."""

    def __init__(self, pki: Pki, data: Path, address: str) -> None:
        Pki.write(pki.part("admin"), data / "pki" / "admin")
        self._environment = {"MESHWRIGHT_DATA": str(data), "MESHWRIGHT_MANAGER": address, "COLUMNS": "200"}

    async def __call__(self, *arguments: str, status: int = 0, stdin: bytes | None = None) -> str:
        result = await asyncio.to_thread(
            CliRunner().invoke, app, list(arguments), input=stdin, env=self._environment, prog_name="meshwright"
        )
        assert result.exit_code == status, result.output
        return str(result.output)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "shop.yaml").write_text(SHOP)
    (folder / "split.yaml").write_text(SPLIT)
    return folder


async def test_apply_get_and_delete(pki: Pki, tmp_path: Path, files: Path) -> None:
    async with running(pki, tmp_path) as address:
        shell = Shell(pki, tmp_path / "data", address)
        applied = await shell("apply", "-f", str(files))
        assert "TrafficSplit default/catalog created" in applied
        assert "revision 1" in applied
        assert "(nothing differed)" in await shell("apply", "-f", str(files / "shop.yaml"))
        table = await shell("get", "TrafficSplit")
        assert re.search(r"TrafficSplit +default +catalog +catalog → catalog-v1 90 %, catalog-v2 10 %", table)
        documents = list(yaml.safe_load_all(await shell("get", "trafficsplits", "-o", "yaml")))
        assert documents[0]["spec"]["backends"][1] == {"service": "catalog-v2", "weight": 10}
        one = json.loads(await shell("get", "Service", "catalog", "-n", "default", "-o", "json"))
        assert one["metadata"]["name"] == "catalog"
        everything = json.loads(await shell("get", "all", "-o", "json"))
        assert len(everything["items"]) == 9
        assert "deleted" in await shell("delete", "TrafficSplit", "catalog")
        assert "there is no TrafficSplit catalog" in await shell("get", "TrafficSplit", "catalog", status=1)
        assert "revision 3" in await shell("delete", "-f", str(files / "shop.yaml"))


async def test_what_get_prints_can_be_applied(pki: Pki, tmp_path: Path, files: Path) -> None:
    async with running(pki, tmp_path) as address:
        shell = Shell(pki, tmp_path / "data", address)
        await shell("apply", "-f", str(files))
        printed = await shell("get", "all", "-o", "yaml")
        (tmp_path / "again.yaml").write_text(printed)
        assert "nothing differed" in await shell("apply", "-f", str(tmp_path / "again.yaml"))


async def test_a_namespace_option_places_what_has_none(pki: Pki, tmp_path: Path, files: Path) -> None:
    async with running(pki, tmp_path) as address:
        shell = Shell(pki, tmp_path / "data", address)
        refused = await shell("apply", "-f", str(files / "shop.yaml"), "-n", "depot", status=78)
        assert "apply a Namespace depot first" in refused
        (files / "namespace.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: depot}\n")
        await shell("apply", "-f", str(files), "-n", "depot")
        assert "Service depot/catalog" not in await shell("get", "Service", "-n", "default")
        assert json.loads(await shell("get", "Service", "-n", "depot", "-o", "json"))["items"]


BAD = {
    "unreadable YAML": ("a: [1,\n", "bad.yaml"),
    "unknown kind": (SPLIT.replace("TrafficSplit", "TrafficSplitt"), "did you mean TrafficSplit"),
    "unknown field": (
        SPLIT.replace("weight: 90", "weigth: 90"),
        "#1: TrafficSplit default/catalog: spec.backends[0]",
    ),
    "wrong type": (SPLIT.replace("90", "lots"), 'spec.backends[0].weight: is "lots" (text): write a whole number'),
    "an 11 MB document": ("kind: x\ntext: " + "x" * 11_000_000, "MiB"),
    "unknown namespace": (SPLIT.replace("name: catalog}", "name: catalog, namespace: nowhere}", 1), "nowhere"),
    "no document": ("# nothing\n", "holds no document"),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_input_names_the_file_and_changes_nothing(pki: Pki, tmp_path: Path, files: Path, case: str) -> None:
    text, told = BAD[case]
    (files / "bad.yaml").write_text(text)
    async with running(pki, tmp_path) as address:
        shell = Shell(pki, tmp_path / "data", address)
        printed = await shell("apply", "-f", str(files / "shop.yaml"), "-f", str(files / "bad.yaml"), status=78)
        assert told in printed
        assert "bad.yaml" in printed
        assert json.loads(await shell("get", "all", "-o", "json"))["items"] == []


async def test_a_missing_backend_is_a_warning(pki: Pki, tmp_path: Path, files: Path) -> None:
    (files / "split.yaml").write_text(SPLIT.replace("catalog-v2", "catalog-v3"))
    async with running(pki, tmp_path) as address:
        shell = Shell(pki, tmp_path / "data", address)
        printed = await shell("apply", "-f", str(files))
        assert "catalog-v3 doesn't exist: 10 % of the requests fail until it does" in printed
        assert "split.yaml#1" in printed


async def test_status_and_wait(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path) as address:
        shell = Shell(pki, tmp_path / "data", address)
        assert "no proxy is connected" in await shell("status")
        assert json.loads(await shell("status", "-o", "json")) == {"revision": 0, "proxies": [], "unreachable": []}
        late = await shell("wait", "--revision", "7", "--timeout", "0.2", status=1)
        assert "revision 7 isn't acknowledged: the manager's newest is 0" in late


async def test_history_diff_and_rollback(pki: Pki, tmp_path: Path, files: Path) -> None:
    async with running(pki, tmp_path) as address:
        shell = Shell(pki, tmp_path / "data", address)
        assert "no such change is in the history" in await shell("history")
        await shell("apply", "-f", str(files), "-m", "open the shop")
        (files / "split.yaml").write_text(SPLIT.replace("90", "50"))
        await shell("apply", "-f", str(files / "split.yaml"), "--message", "half of it")
        table = await shell("history")
        assert re.search(r"2 +20\S+ +admin +TrafficSplit default/catalog changed +half of it", table)
        assert re.search(r"1 +20\S+ +admin .* and 6 more +open the shop", table)
        told = json.loads(await shell("history", "trafficsplits", "catalog", "-o", "json"))
        assert [found["message"] for found in told["revisions"]] == ["half of it", "open the shop"]
        difference = await shell("diff", "1")
        assert "--- TrafficSplit default/catalog (revision 1)" in difference
        assert "+++ TrafficSplit default/catalog (revision 2)" in difference
        assert "-    weight: 90\n+    weight: 50\n" in difference.replace("  - ", "    ")
        assert "+++ /dev/null" in await shell("diff", "1", "0")
        assert "nothing differs between revisions 2 and 2" in await shell("diff", "2")
        assert json.loads(await shell("diff", "0", "1", "-o", "json"))["objects"][0]["before"] is None
        assert "nothing was changed (dry run)" in await shell("rollback", "1", "--dry-run")
        late = await shell("rollback", "1", "--expect-revision", "1", status=1)
        assert "changed by spiffe://mesh.local/ns/meshwright-system/sa/admin at 20" in late
        assert "TrafficSplit default/catalog changed" in await shell("rollback", "1")
        assert "nothing differs" in await shell("diff", "1", "3")
        assert "there is no revision 9 yet" in await shell("diff", "9", status=1)


async def test_a_dry_run_shows_what_proxies_would_get(pki: Pki, tmp_path: Path, files: Path) -> None:
    async with running(pki, tmp_path) as address:
        shell = Shell(pki, tmp_path / "data", address)
        await shell("apply", "-f", str(files / "shop.yaml"))
        shown = await shell("apply", "-f", str(files / "split.yaml"), "--dry-run")
        assert "RouteConfiguration outbound|default|*/* changed at 1 proxy\n" in shown
        assert "weighted_clusters" not in shown
        assert re.search(r"\+ +weighted_clusters", await shell("apply", "-f", str(files), "--dry-run", "--show-xds"))
        assert "no proxy's resources would change" in await shell("apply", "-f", str(files / "shop.yaml"), "--dry-run")


async def test_waiting_for_objects(pki: Pki, tmp_path: Path, files: Path) -> None:
    async with running(pki, tmp_path) as address:
        shell = Shell(pki, tmp_path / "data", address)
        missing = await shell("wait", "TrafficSplit", "catalog", "--timeout", "0.2", status=1)
        assert "Programmed isn't true of TrafficSplit default/catalog (NotFound: there is no such object)" in missing
        (files / "split.yaml").write_text(SPLIT.replace("catalog-v2", "catalog-v3"))
        assert "revision 1" in await shell("apply", "-f", str(files), "--wait", "20")
        assert "Programmed" in await shell("wait", "TrafficSplit", "catalog")
        assert "Accepted" in await shell("wait", "Service", "catalog", "catalog-v2", "--for", "accepted")
        late = await shell("wait", "TrafficSplit", "catalog", "--for", "ResolvedRefs", "--timeout", "0.2", status=1)
        assert "catalog-v3 doesn't exist" in late
        still = await shell("wait", "TrafficSplit", "catalog", "--for", "Deleted", "--timeout", "0.2", status=1)
        assert "it is still there" in still
        await shell("delete", "TrafficSplit", "catalog")
        await shell("wait", "TrafficSplit", "catalog", "--for", "Deleted")
        await shell("wait")  # no proxy is connected: all have the newest revision
        assert "give a kind and names" in await shell("wait", "TrafficSplit", status=64)


async def test_a_manager_that_is_away_and_an_identity_that_is_missing(pki: Pki, tmp_path: Path) -> None:
    shell = Shell(pki, tmp_path / "data", "127.0.0.1:1")
    assert "the manager at 127.0.0.1:1 doesn't answer" in await shell("status", "--timeout", "1", status=69)
    missing = await shell("status", "--identity", str(tmp_path / "nobody"), status=78)
    assert "start 'meshwright up'" in missing


async def test_the_running_platforms_address_is_found(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path) as address:
        data = tmp_path / "data"
        shell = Shell(pki, data, address)
        (data / "run").mkdir()
        parts = [{"name": "manager", "ports": {"grpc": int(address.rpartition(":")[2])}}]
        (data / "run" / "state.json").write_text(json.dumps({"parts": parts}))
        shell._environment.pop("MESHWRIGHT_MANAGER")
        assert "no proxy is connected" in await shell("status")
