"""Who may ask: names, origins, the token."""

import pytest
from starlette.datastructures import Headers

from mtl_face.serve.access import Access

TOKEN = "0123456789abcdef"


def status(access, path="/api/about", **headers):
    refusal = access.refusal(Headers(headers), path)
    return None if refusal is None else refusal[0]


LOCAL = Access(names=frozenset({"localhost", "127.0.0.1", "::1"}))


@pytest.mark.parametrize("host", ["localhost:8765", "LOCALHOST", "127.0.0.1:1", "[::1]:8765"])
def test_known_names_are_admitted_at_any_port(host):
    assert status(LOCAL, host=host) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example:8765", "127.0.0.1.evil.example", "192.168.0.7", "", "[::1", "localhost@evil"],
)
def test_other_names_are_refused(host):
    assert status(LOCAL, host=host) == 403


def test_beyond_loopback_addresses_are_names_but_no_unknown_words():
    access = Access(names=frozenset({"lab"}), any_address=True)
    assert status(access, host="lab:8765") is None
    assert status(access, host="192.168.0.7:8765") is None
    assert status(access, host="rebound.example:8765") == 403


def test_headers_are_not_repeated():
    for name in ("host", "origin"):
        pairs = [(b"host", b"localhost"), (b"origin", b"http://localhost")]
        pairs.append((name.encode(), b"localhost"))
        assert LOCAL.refusal(Headers(raw=pairs), "/")[0] == 400
    assert LOCAL.refusal(Headers(raw=[]), "/")[0] == 400


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://localhost:8765", None),
        ("https://localhost:8765", None),
        ("http://localhost:3000", 403),
        ("http://evil.example", 403),
        ("http://localhost:8765.evil.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_only_its_own_page_may_ask(origin, expected):
    assert status(LOCAL, host="localhost:8765", origin=origin) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 401),
        ({"authorization": f"Bearer {TOKEN}"}, None),
        ({"authorization": f"bearer  {TOKEN} "}, None),
        ({"authorization": f"Basic {TOKEN}"}, 401),
        ({"authorization": TOKEN}, 401),
        ({"authorization": f"Bearer {TOKEN}x"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Bearer ä"}, 401),
        ({"cookie": f"other=1; mtl_face={TOKEN}"}, None),
        ({"cookie": f"mtl_face_2={TOKEN}"}, 401),
        ({"cookie": "mtl_face="}, 401),
        ({"cookie": 'a="; mtl_face'}, 401),
    ],
)
def test_the_token_comes_in_a_header_or_a_cookie(headers, expected):
    access = Access(names=LOCAL.names, token=TOKEN)
    assert status(access, host="localhost", **headers) == expected
    assert status(access, "/style.css", host="localhost", **headers) is None
