"""Who may ask: names of the host, origins of pages, and the token.

Any website that a browser shows can send requests to 127.0.0.1, and by DNS rebinding read the
answers under a name of its own. So a request must name this server by a known name or by an IP
address, which cannot be rebound, and must come from its own page or from no page at all.
"""

import dataclasses
import hmac
import ipaddress
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

API = "/api/"
"""Begin of the paths that need the token; the files of the page hold nothing that is secret."""

SECURITY_HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; media-src 'self' blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "permissions-policy": "camera=(self), microphone=(), geolocation=(), display-capture=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Headers of every answer."""

IN_PAGE_HEADERS: Mapping[str, str] = {
    **SECURITY_HEADERS,
    "content-security-policy": SECURITY_HEADERS["content-security-policy"].replace(
        "script-src 'self'", "script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'"
    ),
    "cross-origin-embedder-policy": "require-corp",
}
"""Headers for a page that runs WebAssembly itself, in threads, which need an isolated page."""


@dataclasses.dataclass(frozen=True)
class Access:
    """Rules of admission.

    Attributes:
        names: of this server, in lower case, as a browser may write them in its address.
        any_address: whether every IP address is a name of this server as well.
        token: the secret, or None where none is asked for.
        cookie: name of the cookie that holds it.
    """

    names: frozenset[str]
    any_address: bool = False
    token: str | None = None
    cookie: str = "mtl_face"

    def refusal(self, headers: Headers, path: str) -> tuple[int, str] | None:
        """Status and reason for which a request is refused, or None."""
        # A repeated header could be read in two ways.
        if len(headers.getlist("host")) != 1 or len(headers.getlist("origin")) > 1:
            return 400, "one Host header and at most one Origin header are expected"
        host = headers["host"].lower()
        if not self._is_known(host):
            return 403, (
                "this server does not answer under that name: open the address that it printed, or "
                "add the name to --allow_host"
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin.lower()).netloc != host:
            return 403, "another website asked; only this server's own page may"
        if path.startswith(API) and not self._has_token(headers):
            return 401, "the token is missing or wrong"
        return None

    def _is_known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address

    def _has_token(self, headers: Headers) -> bool:
        if self.token is None:
            return True
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            cookie = None
        given = [bearer.strip()] if scheme.lower() == "bearer" else []
        given += [cookie.value] if cookie else []
        return any(hmac.compare_digest(text.encode(), self.token.encode()) for text in given)


class Guard:
    """An application behind `Access`, with `headers` on all that it answers."""

    def __init__(
        self, app: ASGIApp, access: Access, headers: Mapping[str, str] = SECURITY_HEADERS
    ) -> None:
        self._app, self._access, self._headers = app, access, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request or a WebSocket, or refuses it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        refusal = self._access.refusal(Headers(scope=scope), scope["path"])
        if refusal is None:
            await self._app(scope, receive, send_with_headers)
        elif scope["type"] == "websocket":
            await receive()  # the request to connect
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[1]})
        else:
            status, reason = refusal
            response = JSONResponse({"error": reason}, status, {"connection": "close"})
            await response(scope, receive, send_with_headers)
