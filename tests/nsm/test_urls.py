"""Network service URLs and addresses of hops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core import errors
from meshwright.nsm import urls
from meshwright.nsm.descriptors import Inode


def test_all_parts_of_a_url() -> None:
    url = urls.parse("kernel://vpn@other.example/nsm-1?app=shop&tier=")
    assert (url.mechanism, url.service, url.interface) == ("KERNEL", "vpn@other.example", "nsm-1")
    assert url.labels == {"app": "shop", "tier": ""}


@pytest.mark.parametrize(
    "text", ["vpn", "kernel://", "kernel:///nsm-1", "kernel://vpn/a/b", "kernel://vpn/" + "x" * 16]
)
def test_what_can_not_be_asked_for_says_why(text: str) -> None:
    with pytest.raises(errors.ConfigError, match="network service"):
        urls.parse(text)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (urls.parse, urls.dial, Inode.parse):
        try:
            read(text)
        except errors.ConfigError:
            pass


def test_where_hops_listen() -> None:
    assert urls.dial("unix:///run/nsmgr.sock") == urls.dial("unix:/run/nsmgr.sock") == "unix:/run/nsmgr.sock"
    assert urls.dial("tcp://10.0.0.1:5001") == urls.dial("10.0.0.1:5001") == "10.0.0.1:5001"
    assert urls.of_address("unix:/run/x") == "unix:///run/x"
    assert urls.of_address("127.0.0.1:5001") == "tcp://127.0.0.1:5001"


def test_an_inode_comes_back() -> None:
    assert Inode.parse("inode://4/4026531840") == Inode(4, 4026531840)
    with pytest.raises(errors.ConfigError, match="names no descriptor"):
        Inode.parse("file:///proc/1/ns/net")
