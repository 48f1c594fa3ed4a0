"""Which headers of proxies are believed, and what the app then sees of its client."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_agentapp import AgentApp
from trio_agentapp.errors import ConfigurationError
from trio_agentapp.server.extensions import peer_of
from trio_agentapp.web.proxies import MAX_HOPS, Proxies

PEER = "10.0.0.7"
TRUSTED = ("10.0.0.0/8", "2001:db8:1::/48")

Lines = list[tuple[str, str]]


def scope_of(headers: Lines, peer: str | None = PEER, path: str = "/x", **more: Any) -> dict[str, Any]:
    named = [("Host", "app.internal:8090"), *headers]
    return {
        "type": "http",
        "client": None if peer is None else (peer, 50000),
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in named],
        **more,
    }


def seen(headers: Lines, *, trusted: tuple[str, ...] = TRUSTED, root_path: str = "", **more: Any) -> dict[str, Any]:
    return Proxies(trusted, root_path).client_scope(scope_of(headers, **more))  # type: ignore[type-var]


def shown(scope: dict[str, Any]) -> tuple[Any, ...]:
    """Address, scheme, host and prefix."""
    return scope["client"][0], scope["scheme"], dict(scope["headers"])[b"host"].decode(), scope["root_path"]


DEFAULT = (PEER, "http", "app.internal:8090", "")

ADDRESSES: list[tuple[Lines, str]] = [
    ([], PEER),
    ([("X-Forwarded-For", "203.0.113.9")], "203.0.113.9"),
    ([("X-Forwarded-For", "203.0.113.9:4711")], "203.0.113.9"),
    ([("X-Forwarded-For", "[2001:db8::9]:4711")], "2001:db8::9"),
    ([("X-Forwarded-For", "2001:db8::9")], "2001:db8::9"),
    ([("X-Forwarded-For", "::ffff:203.0.113.9")], "203.0.113.9"),
    # The client has sent the first one itself.
    ([("X-Forwarded-For", "198.51.100.1, 203.0.113.9")], "203.0.113.9"),
    ([("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", "203.0.113.9")], "203.0.113.9"),
    ([("X-Forwarded-For", "10.9.9.9, 203.0.113.9")], "203.0.113.9"),
    # Other proxies are passed over, and a client inside of the trusted network is found.
    ([("X-Forwarded-For", "198.51.100.1, 203.0.113.9, 10.0.0.8, 2001:db8:1::5")], "203.0.113.9"),
    ([("X-Forwarded-For", "10.0.0.99, 10.0.0.8")], "10.0.0.99"),
    # What cannot be read ends the list.
    ([("X-Forwarded-For", "203.0.113.9, nonsense")], PEER),
    ([("X-Forwarded-For", "203.0.113.9, nonsense, 10.0.0.8")], "10.0.0.8"),
    ([("X-Forwarded-For", "")], PEER),
    ([("X-Forwarded-For", ",,, ,")], PEER),
    ([("X-Forwarded-For", "999.1.1.1")], PEER),
    ([("X-Forwarded-For", "[::1")], PEER),
    ([("X-Forwarded-For", ",".join(["10.0.0.8"] * 5000) + ",10.0.0.9")], "10.0.0.8"),
    ([("X-Forwarded-For", ",".join(["203.0.113.9"] + ["10.0.0.8"] * MAX_HOPS))], "10.0.0.8"),
    # RFC 7239.
    ([("Forwarded", "for=203.0.113.9")], "203.0.113.9"),
    ([("Forwarded", 'For="[2001:db8::9]:4711"')], "2001:db8::9"),
    ([("Forwarded", "for=198.51.100.1, for=203.0.113.9;proto=http;by=10.0.0.7")], "203.0.113.9"),
    ([("Forwarded", "for=198.51.100.1, for=203.0.113.9, for=10.0.0.8")], "203.0.113.9"),
    ([("Forwarded", "for=198.51.100.1"), ("Forwarded", "for=203.0.113.9")], "203.0.113.9"),
    ([("Forwarded", 'for=198.51.100.1;by=", for="[2001:db8::9]:4711"')], "2001:db8::9"),
    ([("Forwarded", "for=198.51.100.1;;=, for=203.0.113.9")], "203.0.113.9"),
    ([("Forwarded", "for=unknown")], PEER),
    ([("Forwarded", "for=_hidden:_port")], PEER),
    ([("Forwarded", "for=203.0.113.9, for=unknown, for=10.0.0.8")], "10.0.0.8"),
    ([("Forwarded", "for=203.0.113.9;for=198.51.100.1")], PEER),
    ([("Forwarded", 'for="203.0.113.9')], PEER),
    ([("Forwarded", "=;=,;\x7f")], PEER),
    # A proxy that sets `X-Forwarded-For` lets `Forwarded` of its clients pass.
    ([("Forwarded", "for=198.51.100.1;host=evil.example"), ("X-Forwarded-For", "203.0.113.9")], "203.0.113.9"),
]


@pytest.mark.parametrize(("headers", "address"), ADDRESSES, ids=[f"{each[0]}"[:60] for each in ADDRESSES])
def test_the_clients_address(headers: Lines, address: str) -> None:
    scope = seen(headers)
    assert shown(scope) == (address, *DEFAULT[1:])
    assert peer_of(scope) == PEER  # type: ignore[arg-type]


URLS: list[tuple[Lines, tuple[str, str, str]]] = [
    ([("X-Forwarded-Proto", "https")], ("https", "app.internal:8090", "")),
    ([("X-Forwarded-Proto", "HTTPS")], ("https", "app.internal:8090", "")),
    ([("X-Forwarded-Proto", "wss")], ("https", "app.internal:8090", "")),
    ([("X-Forwarded-Proto", "gopher")], ("http", "app.internal:8090", "")),
    ([("X-Forwarded-Host", "a.example")], ("http", "a.example", "")),
    ([("X-Forwarded-Host", "a.example:8443")], ("http", "a.example:8443", "")),
    ([("X-Forwarded-Host", "[2001:db8::9]:8443")], ("http", "[2001:db8::9]:8443", "")),
    ([("X-Forwarded-Host", "a.example:99999")], ("http", "app.internal:8090", "")),
    ([("X-Forwarded-Host", "a b/<c>")], ("http", "app.internal:8090", "")),
    ([("X-Forwarded-Host", "a.example\xff")], ("http", "app.internal:8090", "")),
    ([("X-Forwarded-Host", "a.example"), ("X-Forwarded-Port", "8443")], ("http", "a.example:8443", "")),
    ([("X-Forwarded-Host", "a.example"), ("X-Forwarded-Port", "443")], ("http", "a.example", "")),
    ([("X-Forwarded-Host", "a.example:1"), ("X-Forwarded-Port", "8443")], ("http", "a.example:1", "")),
    ([("X-Forwarded-Host", "a.example"), ("X-Forwarded-Port", "99999")], ("http", "a.example", "")),
    ([("X-Forwarded-Host", "a.example"), ("X-Forwarded-Port", "-1")], ("http", "a.example", "")),
    ([("X-Forwarded-Port", "8443")], ("http", "app.internal:8090", "")),
    ([("X-Forwarded-Prefix", "/agents")], ("http", "app.internal:8090", "/agents")),
    ([("X-Forwarded-Prefix", "/agents/")], ("http", "app.internal:8090", "/agents")),
    ([("X-Forwarded-Prefix", "/")], ("http", "app.internal:8090", "")),
    *(
        ([("X-Forwarded-Prefix", text)], ("http", "app.internal:8090", ""))
        for text in ("//evil.example", "agents", "/../x", "/a/./b", "/a\\b", "/%2e", "https://evil.example", "/a b")
    ),
    # The nearest proxy has appended.
    ([("X-Forwarded-Host", "evil.example, a.example")], ("http", "a.example", "")),
    ([("X-Forwarded-Prefix", "/evil, /agents")], ("http", "app.internal:8090", "/agents")),
    # Two proxies: the first has seen the client's URL, and each has removed a prefix.
    (
        [
            ("X-Forwarded-For", "198.51.100.1, 203.0.113.9, 10.0.0.8"),
            ("X-Forwarded-Proto", "http, https, http"),
            ("X-Forwarded-Host", "evil.example, a.example, inner"),
            ("X-Forwarded-Prefix", "/evil, /one"),
            ("X-Forwarded-Prefix", "/two"),
        ],
        ("https", "a.example", "/one/two"),
    ),
    (
        [("Forwarded", 'for=9.9.9.9;host=evil, for=203.0.113.9;host="a.example:8443";proto=https, for=10.0.0.8')],
        ("https", "a.example:8443", ""),
    ),
    ([("Forwarded", "for=203.0.113.9, for=10.0.0.8;proto=https;host=a.example")], ("https", "a.example", "")),
    ([("Forwarded", "proto=https;host=a.example, for=203.0.113.9")], ("http", "app.internal:8090", "")),
    ([("Forwarded", "proto=https"), ("X-Forwarded-Prefix", "/a")], ("https", "app.internal:8090", "/a")),
    ([("Forwarded", "for=203.0.113.9;proto=x;host=/")], ("http", "app.internal:8090", "")),
]


@pytest.mark.parametrize(("headers", "url"), URLS, ids=[f"{each[0]}"[:60] for each in URLS])
def test_the_clients_url(headers: Lines, url: tuple[str, str, str]) -> None:
    assert shown(seen(headers))[1:] == url


SPOOFED: Lines = [
    ("X-Forwarded-For", "198.51.100.1"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Port", "1"),
    ("X-Forwarded-Prefix", "/evil"),
    ("Forwarded", "for=198.51.100.1;proto=https;host=evil.example"),
]


@pytest.mark.parametrize("peer", ["203.0.113.9", "11.0.0.7", "::1", "", None, "<local>"])
def test_others_are_not_believed(peer: str | None) -> None:
    scope = scope_of(SPOOFED, peer=peer)
    assert Proxies(TRUSTED).client_scope(scope) is scope  # type: ignore[type-var]


PIECES = st.sampled_from(
    [*'abc019.:[],;="\\/_%- \xff\x00', "for=", "host=", "proto=", "10.0.0.1", "2001:db8::1", "/..", "//", "unknown"]
)
NAMES = st.sampled_from([*(name for name, _ in SPOOFED), "Host"])
HEADERS = st.lists(st.tuples(NAMES, st.lists(PIECES, max_size=20).map("".join)), max_size=6)


@given(HEADERS)
def test_nothing_that_a_client_sends_breaks_it(headers: Lines) -> None:
    lines = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope = Proxies(TRUSTED).client_scope({**scope_of([]), "headers": lines})  # type: ignore[type-var]
    address, scheme, prefix = scope["client"][0], scope["scheme"], scope["root_path"]
    assert str(ipaddress.ip_address(address)) == address
    assert scheme in ("http", "https")
    assert re.fullmatch(r"(/[a-z0-9._:;=-]+)*", prefix)
    assert "/.." not in [f"/{part}" for part in prefix.split("/")]
    assert scope["path"] == f"{prefix}/x"


def test_by_default_nobody_is_believed() -> None:
    scope = scope_of(SPOOFED, peer="127.0.0.1")
    assert Proxies().client_scope(scope) is scope  # type: ignore[type-var]


def test_a_proxy_at_a_unix_socket() -> None:
    headers = [("X-Forwarded-For", "203.0.113.9")]
    scope = seen(headers, trusted=("unix",), peer=None)
    assert scope["client"] == ("203.0.113.9", 0)
    assert peer_of(scope) == "unix"  # type: ignore[arg-type]
    assert seen(headers, trusted=("unix",))["client"][0] == PEER


def test_a_websocket_has_schemes_of_its_own() -> None:
    headers = [("X-Forwarded-Proto", "https")]
    assert seen(headers, type="websocket", scheme="ws")["scheme"] == "wss"
    assert seen([("X-Forwarded-Proto", "http")], type="websocket", scheme="wss")["scheme"] == "ws"


PATHS = [
    # root_path, the header, the path that the app gets; prefix and path that it serves
    ("/agents", None, "/x", "/agents", "/agents/x"),
    ("/agents", None, "/agents/x", "/agents", "/agents/x"),
    ("/agents/", None, "/agents/x", "/agents", "/agents/x"),
    ("/agents", None, "/agents", "/agents", "/agents/"),
    ("/agents", None, "/agentsx", "/agents", "/agents/agentsx"),
    ("/a/b", None, "/a/x", "/a/b", "/a/b/a/x"),
    ("", "/agents", "/x", "/agents", "/agents/x"),
    # The proxy has removed it once, so this is another path: rules of the proxy for it cannot be evaded.
    ("", "/agents", "/agents/x", "/agents", "/agents/agents/x"),
    ("/agents", "/other", "/x", "/other", "/other/x"),
]


@pytest.mark.parametrize(("root_path", "header", "path", "prefix", "served"), PATHS)
def test_the_prefix_and_the_path(root_path: str, header: str | None, path: str, prefix: str, served: str) -> None:
    headers = [] if header is None else [("X-Forwarded-Prefix", header)]
    scope = seen(headers, root_path=root_path, path=path)
    assert (scope["root_path"], scope["path"]) == (prefix, served)
    assert scope["raw_path"].decode() in (served, served.rstrip("/"))


def test_the_prefix_of_the_server_is_kept() -> None:
    for path in ("/x", "/mounted/x"):
        proxies = Proxies()
        scope: Any = proxies.client_scope(scope_of([], root_path="/mounted", path=path))  # type: ignore[type-var]
        assert (scope["root_path"], scope["path"]) == ("/mounted", "/mounted/x")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trusted_proxies": ["proxy"]}, "trusted_proxies must be addresses .*'proxy' is no address"),
        ({"trusted_proxies": ["*"]}, r"trusted_proxies must be addresses .*'\*' is no address"),
        ({"trusted_proxies": ["0.0.0.0/0"]}, "trusts every client"),
        ({"trusted_proxies": "10.0.0.7"}, "trusted_proxies must be a tuple"),
        ({"root_path": "agents"}, "root_path must be a path prefix"),
        ({"root_path": "//agents"}, "root_path must be a path prefix"),
        ({"root_path": "/a/../b"}, "root_path must be a path prefix"),
        ({"root_path": "/ä"}, "root_path must be a path prefix"),
    ],
)
def test_settings_that_cannot_work(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        AgentApp(**options)


async def test_a_prefix_that_is_a_route_is_refused() -> None:
    app = AgentApp(root_path="/chat", web_ui=True)

    @app.query()
    async def chat() -> str:
        return "hi"

    with pytest.raises(ConfigurationError, match="'/chat' is also the beginning of a route"):
        async with app.runtime():
            pass


def test_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTAPP_TRUSTED_PROXIES", "10.0.0.7, 10.1.0.0/16")
    monkeypatch.setenv("AGENTAPP_ROOT_PATH", "/agents")
    settings = AgentApp().settings
    assert (settings.trusted_proxies, settings.root_path) == (("10.0.0.7", "10.1.0.0/16"), "/agents")
