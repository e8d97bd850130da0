"""Descriptors are kept once for each inode and none is left open."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from meshwright.nsm import descriptors
from meshwright.nsm.descriptors import Descriptor, Held
from meshwright.nsm.errors import InvalidMechanism, InvalidUrl


def _open() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_the_same_thing_again_is_closed() -> None:
    before = _open()
    held = Held()
    first = held.keep(descriptors.own_network_namespace())
    assert held.keep(descriptors.own_network_namespace()) is first
    assert len(held) == 1
    assert _open() == before + 1
    held.only({first.inode})
    assert held.get(first.inode) is first
    held.close()
    assert _open() == before


def test_only_a_network_namespace_is_one() -> None:
    with descriptors.own_network_namespace() as namespace:
        descriptors.check_network_namespace(namespace)
    for path in ("/dev/null", "/proc/self/ns/uts"):
        with (
            Descriptor(os.open(path, os.O_RDONLY)) as other,
            pytest.raises(InvalidMechanism, match="isn't a network namespace"),
        ):
            descriptors.check_network_namespace(other)


def test_a_socket_file_is_reached_without_its_path(tmp_path: Path) -> None:
    """Whoever holds the descriptor connects through it, wherever the file went."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as caller:
        listening.bind(str(path))
        listening.listen()
        with descriptors.socket_file(str(path)) as file:
            assert descriptors.is_socket_file(file)
            path.rename(tmp_path / "moved")
            caller.connect(f"/proc/self/fd/{file.fileno()}")
    (tmp_path / "plain").touch()
    before = _open()
    with pytest.raises(InvalidUrl, match="isn't a socket"):
        descriptors.socket_file(str(tmp_path / "plain"))
    assert _open() == before
