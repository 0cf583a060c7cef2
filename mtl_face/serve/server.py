"""Listens for a browser: address, certificate and token checked before anything is loaded."""

import asyncio
import contextlib
import dataclasses
import ipaddress
import logging
import re
import secrets
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from mtl_face import files
from mtl_face.errors import ConfigError, UserError
from mtl_face.serve import app
from mtl_face.serve.access import Access
from mtl_face.serve.in_page import InPage
from mtl_face.serve.model import Model

LEAST_TOKEN = 16
"""Characters of a token, at least."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_STOP_SECONDS = 3
_CONNECTIONS = 200
_NEEDS_CERTIFICATE = (
    "browsers open a camera only over https, and without it pictures and token could be read on "
    "the way"
)
_TUNNEL = (
    "give --certificate=FILE.pem and --key=FILE.pem, or leave --host out and reach this machine "
    "through a tunnel: ssh -L 8765:127.0.0.1:8765 NAME"
)


class ServerError(UserError):
    """An address that cannot be listened on, or a certificate that cannot be used."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Where the server listens, and for whom.

    Attributes:
        host: name or address of an interface of this machine.
        port: 0 takes a free one.
        token: the secret; None: none on loopback, a new one elsewhere.
        certificate: PEM file; None: http.
        key: PEM file of its private key; None: in the same file.
        allow_hosts: further names under which browsers reach this machine.
        limits: of each client.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    allow_hosts: tuple[str, ...] = ()
    limits: app.Limits = dataclasses.field(default_factory=app.Limits)


def serve(
    options: Options,
    load: Callable[[], Model | InPage],
    say: Callable[[str], None],
    *,
    started: Callable[[uvicorn.Server], None] = lambda server: None,
) -> None:
    """Answers until Ctrl-C or SIGTERM.

    Args:
        options: where, and for whom.
        load: loads the model, or what the page needs of it, after the address is known to be free.
        say: called with each line for the user, the address among them.
        started: is given the server, whose `should_exit` ends it.

    Raises:
        ConfigError: the options do not go together.
        ServerError: the port is in use, or the certificate cannot be read.
    """
    with listening(options) as (listener, is_loopback):
        token = _token(options, is_loopback)
        _check_certificate(options, is_loopback)
        model = load()
        port = listener.getsockname()[1]
        access = Access(
            names=_names(options, is_loopback),
            any_address=not is_loopback,
            token=token,
            cookie=f"mtl_face_{port}",  # browsers share cookies between ports
        )
        server = _Server(options, model, access, say)
        started(server)
        say(_where(options, port, token, is_loopback))
        say(_whereabouts(isinstance(model, InPage), is_loopback))
        say("Ctrl-C stops the server")
        server.run(sockets=[listener])
    say("stopped")


@contextlib.contextmanager
def listening(options: Options) -> Iterator[tuple[socket.socket, bool]]:
    """A socket that listens, and whether it is reached from this machine alone; ServerError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ServerError(
            f"--host={options.host} is no name or address of this machine",
            remedy="leave --host out for 127.0.0.1, or give 0.0.0.0 for all interfaces",
        ) from error
    with socket.socket(family, kind, protocol) as listener:
        # Without it a port stays taken for a minute after a connection was closed.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(128)
        except OSError as error:
            raise ServerError(
                f"cannot listen on {_address(options.host)}:{options.port}: {files.reason(error)}",
                remedy=f"give another port, as --port={options.port + 1 & 0xFFFF}, or --port=0 "
                "for any free one; and stop what listens there if it is an earlier start",
            ) from error
        yield listener, ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback


def _token(options: Options, is_loopback: bool) -> str | None:
    """The token to ask for; ConfigError for one that is easily guessed or fits no cookie."""
    token = options.token
    if token is None:
        return None if is_loopback else secrets.token_urlsafe(24)
    if len(token) < LEAST_TOKEN or not re.fullmatch(r"[\w.~-]+", token, re.ASCII):
        raise ConfigError(
            f"--token has fewer than {LEAST_TOKEN} characters, or others than letters, digits and "
            "-._~",
            remedy="leave it out beyond loopback, and one is made; or make one: "
            'python -c "import secrets; print(secrets.token_urlsafe())"',
        )
    return token


def _check_certificate(options: Options, is_loopback: bool) -> None:
    """ConfigError if a certificate is missing, ServerError if it cannot be used."""
    if options.certificate is None:
        if options.key is not None:
            raise ConfigError("--key is given without --certificate", remedy=_TUNNEL)
        if not is_loopback:
            raise ConfigError(
                f"--host={options.host} is reached by other machines, and there is no certificate: "
                + _NEEDS_CERTIFICATE,
                remedy=_TUNNEL,
            )
        return
    for path in filter(None, (options.certificate, options.key)):
        try:
            path.expanduser().read_bytes()
        except OSError as error:
            problem, remedy = files.unreadable(error, "file")
            raise ServerError(problem, path=path, remedy=remedy) from error

    def no_password() -> str:
        raise ServerError(
            "the private key is encrypted",
            path=options.key or options.certificate,
            remedy="decrypt it: openssl pkey -in ENCRYPTED -out KEY",
        )

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            options.certificate.expanduser(),
            options.key and options.key.expanduser(),
            password=no_password,
        )
    except ssl.SSLError as error:
        raise ServerError(
            f"no certificate in PEM with its private key ({error.reason or error})",
            path=options.certificate,
            remedy="give the certificate as --certificate and its private key as --key, both PEM",
        ) from error


def _names(options: Options, is_loopback: bool) -> frozenset[str]:
    """Names under which browsers may reach the server; a foreign one would be a rebound name."""
    names = {*_LOOPBACK, options.host, *options.allow_hosts}
    if not is_loopback:
        names |= {socket.gethostname(), socket.getfqdn(), f"{socket.gethostname()}.local"}
    return frozenset(name.lower() for name in names)


def _where(options: Options, port: int, token: str | None, is_loopback: bool) -> str:
    """What to open in a browser."""
    host = options.host
    if not is_loopback and _is_any(host):
        host = socket.gethostname()
    scheme = "http" if options.certificate is None else "https"
    secret = "" if token is None else f"#token={token}"
    return f"open {scheme}://{_address(host)}:{port}/{secret}"


def _whereabouts(in_page: bool, is_loopback: bool) -> str:
    """Where pictures go."""
    if in_page:
        return "pictures stay in the page: it finds and answers faces itself, and sends none"
    if is_loopback:
        return "pictures stay on this machine, and none is kept"
    return "whoever has this address with its token can ask; no picture is kept"


def _is_any(host: str) -> bool:
    """Whether a host stands for all interfaces, as 0.0.0.0."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def _address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Server(uvicorn.Server):
    """Stops at the first signal without passing it on, since this is how it is meant to end."""

    def __init__(
        self, options: Options, model: Model | InPage, access: Access, say: Callable[[str], None]
    ) -> None:
        self._say = say
        application = app.make_app(
            model,
            limits=options.limits,
            access=access,
            secure=options.certificate is not None,
            is_stopping=lambda: self.should_exit,
        )
        super().__init__(
            uvicorn.Config(
                application,
                loop="asyncio",
                http="h11",
                ws="websockets-sansio",
                ws_max_size=app.FRAME_BYTES,
                ws_per_message_deflate=False,  # JPEG does not shrink
                lifespan="off",
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_CONNECTIONS,
                ssl_certfile=options.certificate and str(options.certificate.expanduser()),
                ssl_keyfile=options.key and str(options.key.expanduser()),
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles signals while the server runs; they end it, and raise nothing afterwards."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Waits for open answers, and cuts off those that take long, which is no error to log."""
        try:
            await asyncio.wait_for(super().shutdown(sockets), _STOP_SECONDS)
        except TimeoutError:
            cut = list(self.server_state.tasks)
            self._say(f"requests that take longer than {_STOP_SECONDS:g} s are cut off: {len(cut)}")
            log = logging.getLogger("uvicorn.error")
            log.addFilter(_is_no_cut)
            for task in cut:
                task.cancel()
            await asyncio.wait(cut)  # a call of the network runs to its end
            log.removeFilter(_is_no_cut)


def _is_no_cut(record: logging.LogRecord) -> bool:
    """Whether a record tells of anything but an answer that was cut off."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
