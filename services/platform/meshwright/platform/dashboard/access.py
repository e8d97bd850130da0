"""Who may see the dashboard: who has the address that `up` printed, once, and the browser that opened it.

One decision to know: the address' token is used up when it is opened, and becomes a cookie that only that browser has.
So an address in a history or a screenshot opens nothing, and another user who finds the port gets nothing.
"""

from __future__ import annotations

import hmac
import secrets

COOKIE = "meshwright_dashboard"


class Access:
    """One run's token and the session that it became."""

    def __init__(self, port: int) -> None:
        self.token = secrets.token_urlsafe(32)
        self._session: str | None = None
        # The host of the request, so that a page of another site can't be led here by a name of its own.
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    def is_ours(self, host: str) -> bool:
        """Whether a request names this server."""
        return host in self._hosts

    def open(self, token: str) -> str | None:
        """Use the token up; return the session for the cookie, None when it is wrong or used."""
        if self._session is not None or not hmac.compare_digest(token.encode(), self.token.encode()):
            return None
        self._session = secrets.token_urlsafe(32)
        return self._session

    def allows(self, session: str | None) -> bool:
        """Whether a cookie is the session's."""
        return (
            self._session is not None
            and session is not None
            and hmac.compare_digest(session.encode(), self._session.encode())
        )
