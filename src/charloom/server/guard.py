"""Who may ask: the checks of a request's headers, before anything else reads it.

A page on the web can make a browser send requests to this machine. It can send a POST without reading the answer (so
Origin and content type are checked), and it can give its own name the address of this machine (so Host is checked).
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from charloom.server.errors import ApiError, error_response

OPEN = ("/", "/health", "/favicon.ico")
"""Paths that need no key: they hold nothing of a model. The same for everything below `/static/`."""

SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Access:
    """Who may use the server.

    key: that clients must send; None for none. hosts: names of this server beside `localhost` and IP addresses.
    origins: of web pages that may use it, such as `https://example.org`.
    """

    key: str | None = None
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()


class Guard:
    """An ASGI application before another one: it refuses a request with one line, or passes it on.

    app: the other one; access: who may use it; count: called with the status of each refusal.
    """

    def __init__(self, app: ASGIApp, access: Access, count: Callable[[int], None]) -> None:
        self._app, self._access, self._count = app, access, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] == "http":
            try:
                self._check(scope["method"], scope["path"], Headers(scope=scope))
            except ApiError as error:
                self._count(error.status)
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        """Raises the error of a request that is refused."""
        host = headers.get("host", "")
        if not self._is_own(_name(host)):
            raise ApiError(
                403,
                f"the Host header must name this server; got {host!r}; its operator can add a name",
                "host_not_allowed",
            )
        self._check_key(path, headers)
        if method in SAFE:
            return
        origin = headers.get("origin")
        if origin is not None and origin not in self._access.origins and origin.partition("://")[2] != host:
            raise ApiError(
                403,
                f"a web page may use this server only if it is its own; got one of {origin!r}; its operator "
                "can allow more",
                "origin_not_allowed",
            )
        kind = headers.get("content-type", "")
        if method == "POST" and kind.partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, f"the Content-Type must be application/json; got {kind!r}")

    def _check_key(self, path: str, headers: Headers) -> None:
        if self._access.key is None or path in OPEN or path.startswith("/static/"):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._access.key.encode()):
            raise ApiError(
                401, "this server needs its key: send the header `Authorization: Bearer KEY`", "invalid_api_key"
            )

    def _is_own(self, name: str) -> bool:
        """Whether a name in the Host header is this server. A page on the web has no influence on an IP address."""
        if name == "localhost" or name in self._access.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _name(host: str) -> str:
    """The name or address in a Host header, without the port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
