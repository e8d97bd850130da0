"""Makes etcd ask who is there: one user for each service, known by its client certificate, on its own prefixes.

One decision to know: users have no password; a user is whoever shows a certificate of the infrastructure CA with that
common name, so etcd must run with client certificates required.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from meshwright.api.etcd import auth_pb2, rpc_pb2, rpc_pb2_grpc
from meshwright.core import errors
from meshwright.core.store.etcd_endpoints import Endpoints
from meshwright.core.store.etcd_ranges import key_range

ROOT = "root"
CONFIG = "/meshwright/config/"

# AuthUserAddRequest.options.no_password (field 3, then 1) is newer than the package the descriptors come from.
_NO_PASSWORD = b"\x1a\x02\x08\x01"


@dataclass(frozen=True, slots=True)
class Role:
    """What a user may do; both are prefixes."""

    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()

    def permissions(self) -> set[tuple[int, bytes, bytes]]:
        """Return etcd's form: kind, first key, end of range."""
        kinds = auth_pb2.Permission
        return {(int(kinds.READWRITE), *key_range(prefix)) for prefix in self.writes} | {
            (int(kinds.READ), *key_range(prefix)) for prefix in self.reads
        }


ROLES: Mapping[str, Role] = {
    "manager": Role(writes=(CONFIG, "/meshwright/manager/")),
    "mixer": Role(writes=("/meshwright/mixer/",), reads=(CONFIG,)),
    "citadel": Role(writes=("/meshwright/citadel/",), reads=(CONFIG,)),
    "nsm-registry": Role(writes=("/meshwright/nsm/",)),
    # etcd's own certificate: its pod's probe reads the key `health` with it, and a name without a user would be an
    # error with a stack trace in etcd's log each time.
    "etcd": Role(reads=("health",)),
}


async def enable(
    endpoints: Sequence[str], tls: Path, *, roles: Mapping[str, Role] = ROLES, timeout: float = 10.0
) -> None:
    """Make users and roles as they should be and turn authentication on; may be called at every start.

    `tls` must hold a certificate with the common name ``root``. `timeout` is for each of the calls.
    """
    cluster = Endpoints(endpoints, tls)
    try:
        administration = _Administration(cluster, timeout)
        await administration.user(ROOT, ROOT)
        for name, role in roles.items():
            await administration.role(name, role.permissions())
            await administration.user(name, name)
        await administration.call("AuthEnable", rpc_pb2.AuthEnableRequest())
    finally:
        await cluster.close()


class _Administration:
    def __init__(self, cluster: Endpoints, timeout: float) -> None:
        self._cluster, self._timeout = cluster, timeout

    async def call(self, method: str, request: object) -> object:
        """Call a method of etcd's Auth service; all of those used here may be repeated."""
        return await self._cluster.call(
            rpc_pb2_grpc.AuthStub, method, request, timeout=self._timeout, subject=method, repeatable=True
        )

    async def user(self, name: str, role: str) -> None:
        """Make a user without password and give it its role."""
        request = rpc_pb2.AuthUserAddRequest(name=name)
        request.MergeFromString(_NO_PASSWORD)
        await self._ensure("UserAdd", request)
        if role == ROOT:
            await self._ensure("RoleAdd", rpc_pb2.AuthRoleAddRequest(name=role))
        await self.call("UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user=name, role=role))

    async def role(self, name: str, wanted: set[tuple[int, bytes, bytes]]) -> None:
        """Make a role and give it the wanted permissions, and none that an earlier version gave it."""
        await self._ensure("RoleAdd", rpc_pb2.AuthRoleAddRequest(name=name))
        response = await self.call("RoleGet", rpc_pb2.AuthRoleGetRequest(role=name))
        permissions: Iterable[auth_pb2.Permission] = response.perm  # type: ignore[attr-defined]
        present = {(int(each.permType), each.key, each.range_end) for each in permissions}
        for _, key, end in present - wanted:
            await self.call(
                "RoleRevokePermission",
                rpc_pb2.AuthRoleRevokePermissionRequest(role=name, key=key.decode(), range_end=end.decode()),
            )
        for kind, key, end in wanted - present:
            permission = auth_pb2.Permission(permType=kind, key=key, range_end=end)  # type: ignore[arg-type]
            await self.call("RoleGrantPermission", rpc_pb2.AuthRoleGrantPermissionRequest(name=name, perm=permission))

    async def _ensure(self, method: str, request: object) -> None:
        try:
            await self.call(method, request)
        except errors.Conflict as error:  # FAILED_PRECONDITION: it exists already
            if "already exists" not in str(error):
                raise
