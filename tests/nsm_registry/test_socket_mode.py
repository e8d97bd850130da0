from __future__ import annotations

import stat

import pytest
from nsm_node import Node, until


@pytest.mark.parametrize(("given", "mode"), [((), 0o600), (("--socket-mode", "everybody"), 0o666)])
async def test_a_nodes_sockets_are_their_owners_unless_everybodys_is_asked_for(tmp_path, pki, given, mode):
    node = Node(tmp_path, pki, arguments={"nsmgr": given})
    try:
        node.start("nsmgr", wait_for=())
        socket = tmp_path / "nsmgr.sock"
        await until(socket.exists, "nsmgr listens")
        assert stat.S_IMODE(socket.stat().st_mode) == mode
    finally:
        node.stop()
