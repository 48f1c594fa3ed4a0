"""URLs mean what they mean to redis-py, and what is wrong with one is said without its password."""

import ssl

import pytest

from trio_agentapp.errors import ConfigurationError
from trio_agentapp.redis import RedisURL
from trio_agentapp.redis.url import SentinelService, TCPAddress, UnixAddress


@pytest.mark.parametrize(
    ("url", "address", "username", "password", "database"),
    [
        ("redis://", TCPAddress("localhost", 6379), None, None, 0),
        ("redis://host", TCPAddress("host", 6379), None, None, 0),
        ("redis://host:1234/5", TCPAddress("host", 1234), None, None, 5),
        ("redis://host?db=7", TCPAddress("host", 6379), None, None, 7),
        ("redis://:p%40ss%2F@host", TCPAddress("host", 6379), None, "p@ss/", 0),
        ("redis://me:secret@[::1]:7", TCPAddress("::1", 7), "me", "secret", 0),
        ("redis://host?username=me&password=secret", TCPAddress("host", 6379), "me", "secret", 0),
        ("rediss://host", TCPAddress("host", 6379), None, None, 0),
        ("unix:///run/redis.sock", UnixAddress("/run/redis.sock"), None, None, 0),
        ("unix://me:secret@/run/redis.sock?db=2", UnixAddress("/run/redis.sock"), "me", "secret", 2),
    ],
)
def test_what_a_url_says(
    url: str, address: object, username: str | None, password: str | None, database: int
) -> None:
    parsed = RedisURL.parse(url)

    assert (parsed.address, parsed.username, parsed.password) == (address, username, password)
    assert parsed.database == database
    assert (parsed.tls is not None) == url.startswith("rediss")


def test_options() -> None:
    parsed = RedisURL.parse("redis://host?protocol=2&client_name=me&socket_timeout=1.5&socket_connect_timeout=3")

    assert parsed.client_name == "me"
    assert (parsed.call_timeout, parsed.connect_timeout) == (1.5, 3.0)


def test_sentinels() -> None:
    parsed = RedisURL.parse(
        "redis+sentinel://me:secret@one:1,[::2],three:3/my%20service/4?sentinel_username=s&sentinel_password=p&protocol=2"
    )

    assert parsed.address == SentinelService(
        sentinels=(TCPAddress("one", 1), TCPAddress("::2", 26379), TCPAddress("three", 3)),
        service="my service",
        username="s",
        password="p",
    )
    assert (parsed.username, parsed.password, parsed.database) == ("me", "secret", 4)
    assert parsed.tls is None
    assert RedisURL.parse("rediss+sentinel://one/main").tls is not None


def test_tls_options() -> None:
    context = RedisURL.parse("rediss://host").tls
    assert context is not None
    assert context.context().verify_mode == ssl.CERT_REQUIRED
    assert context.context().check_hostname

    context = RedisURL.parse("rediss://host?ssl_cert_reqs=none").tls
    assert context is not None
    assert context.context().verify_mode == ssl.CERT_NONE
    assert not context.context().check_hostname

    context = RedisURL.parse("rediss://host?ssl_check_hostname=false&ssl_min_version=772").tls
    assert context is not None
    assert context.context().verify_mode == ssl.CERT_REQUIRED
    assert not context.context().check_hostname
    assert context.context().minimum_version == ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:6379", "begins with one of redis://"),
        ("http://:hunter2@host", "'http' is not a Redis URL scheme"),
        ("http+sentinel://:hunter2@host/main", "'http+sentinel' is not a Redis URL scheme"),
        ("redis://:hunter2@host:port", "host and port"),
        ("redis://:hunter2", "host and port"),
        ("redis://:hun/ter2@host", "host and port"),
        ("redis://u:hunter2@[::1", "host and port"),
        ("redis://:hunter2@host/zero", "number of a database"),
        ("redis://:hunter2@host/0/1", "number of a database"),
        ("redis://:hunter2@host?db=x", "'db' is wrong"),
        ("redis://:hunter2@host?db=-1", "from 0 on"),
        ("redis://:hunter2@host?protocol=4", "must be 2 or 3"),
        ("redis://:hunter2@host?protocoll=3", "did you mean 'protocol'"),
        ("redis://:hunter2@host?socket_timeout=0", "greater than 0"),
        ("redis://:hunter2@host?ssl_ca_certs=x", "Use rediss://"),
        ("rediss://:hunter2@host?ssl_cert_reqs=maybe", "none, optional, required"),
        ("unix://:hunter2@", "path of a socket"),
        ("redis+sentinel://:hunter2@host", "name of the service"),
        ("redis+sentinel://:hunter2@/main", "at least one host"),
        ("redis+sentinel://:hunter2@host,,b/main", "empty host"),
        ("redis+sentinel://:hunter2@host/main/x", "number of a database"),
    ],
)
def test_a_wrong_url_is_named_without_its_password(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisURL.parse(url)

    assert says in str(caught.value)
    error: BaseException | None = caught.value
    while error is not None:
        assert not any(part in str(error) for part in ("hunter2", "ter2"))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_texts_hold_no_password() -> None:
    for url in (
        "redis://me:hunter2@host/1",
        "rediss://me:hunter2@host?ssl_password=hunter2",
        "redis+sentinel://me:hunter2@host/main?sentinel_password=hunter2",
        "unix://:hunter2@/run/redis.sock",
    ):
        parsed = RedisURL.parse(url)
        assert "hunter2" not in str(parsed) + repr(parsed)
    assert str(RedisURL.parse("redis://me:hunter2@host/1")) == "redis://me:***@host:6379/1"


def test_a_missing_file_is_named() -> None:
    for option in ("ssl_ca_certs", "ssl_certfile"):
        tls = RedisURL.parse(f"rediss://host?{option}=/nowhere/file.pem").tls
        assert tls is not None
        with pytest.raises(ConfigurationError, match=f"{option}.*/nowhere/file.pem"):
            tls.context()
