"""Which parts of the platform a service account may be, and the DNS names of their Services: a table, deny by default.

One decision to know: an account may be several parts, because all containers of a pod have one account; the signing
request says which. The agent alone is bound to its node, as it alone speaks for others. The administrator is a part
too: whoever may run pods as that account in the platform's namespace is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from meshwright.citadel.ca import profile
from meshwright.citadel.kubernetes.accounts import Account
from meshwright.core import errors

AGENT = "citadel-agent"
SINGLE = ("manager", "mixer", "nsm-registry", "collector", "admin")
ON_NODES = (AGENT, "nsmgr", "forwarder")

_ENTRY = re.compile(
    r"(?P<namespace>[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)/(?P<account>[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)"
    r"=(?P<parts>[a-z0-9][a-z0-9-]*(\+[a-z0-9][a-z0-9-]*)*)"
)


@dataclass(frozen=True, slots=True)
class PartsTable:
    """Accounts as (namespace, name), each with the parts that it may be."""

    accounts: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def parse(cls, entries: Iterable[str]) -> PartsTable:
        """Read entries `namespace/account=part` or `namespace/account=part+part`; ConfigError names a wrong one."""
        accounts: dict[tuple[str, str], tuple[str, ...]] = {}
        for entry in entries:
            match = _ENTRY.fullmatch(entry)
            key = (match["namespace"], match["account"]) if match else ("", "")
            if match is None or key in accounts or "citadel" in match["parts"].split("+"):
                raise errors.ConfigError(
                    f"{entry[:200]!r} is no entry, a second one for its account, or gives away citadel's own identity",
                    field="kubernetes_parts",
                    remedy="write namespace/account=part, or =part+part",
                )
            accounts[key] = tuple(match["parts"].split("+"))
        return cls(accounts)

    @classmethod
    def of_release(cls, namespace: str) -> PartsTable:
        """Return the table of the chart's own accounts."""
        accounts = {(namespace, f"meshwright-{part}"): (part,) for part in SINGLE}
        return cls({**accounts, (namespace, "meshwright-node"): ON_NODES})

    def choose(self, account: Account, asked: str | None, trust_domain: str) -> tuple[str, str]:
        """Return the part, and for an agent its node, that the account is; `asked` is the request's SPIFFE ID.

        Raises Forbidden for an account that is none, or not the one asked for.
        """
        parts = self.accounts.get((account.namespace, account.name))
        if parts is None:
            raise errors.Forbidden(
                f"service account {account.namespace}/{account.name} is no part of the platform (add it to "
                "--kubernetes-parts)"
            )
        known = profile.split_part_id(asked, trust_domain) if asked is not None else None
        part = parts[0] if asked is None and len(parts) == 1 else known[0] if known else ""
        if part not in parts:
            raise errors.Forbidden(
                f"service account {account.namespace}/{account.name} is {' or '.join(parts)}, not {asked or 'unnamed'}"
            )
        if part != AGENT:
            return part, ""
        if not account.node:
            raise errors.Forbidden(f"pod {account.pod} of a node's agent runs on no node")
        return part, account.node


def service_names(namespace: str, part: str) -> tuple[str, ...]:
    """Return the DNS names of a part's Service, as the API server calls a webhook."""
    return (f"meshwright-{part}.{namespace}.svc",)
