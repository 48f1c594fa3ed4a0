"""What RFC 6455 asks of a server, section by section as Autobahn's test suite has it, against an echo.

A case is what the client sends, and what the server must answer: frames, and then its close, if it must close.
`python -m tests.fuzz.test_websocket_conformance` prints how many cases each section has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import attrs
import pytest

from .frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, RawSocket, close_payload, frame
from .guarded import HEADERS
from .target import GUARDED_APP, Target, running

MEBIBYTE = 1 << 20
TIMEOUT = 5.0
KAPPA = "Hello-\u00b5@\u00df\u00f6\u00e4\u00fc\u00e0\u00e1-UTF-8!!".encode()
BAD = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"


@attrs.frozen
class Case:
    name: str
    sent: bytes
    answers: list[Frame] = attrs.field(factory=list)
    code: int | None = None
    """Of the server's close, -1: without one; None: the client closes with 1000 in the end, and gets that back."""
    chop: int = 0


def message(opcode: int, payload: bytes, size: int) -> bytes:
    """A message in fragments of `size` bytes."""
    pieces = [payload[start : start + size] for start in range(0, len(payload), size)] or [b""]
    last = len(pieces) - 1
    return b"".join(
        frame(CONTINUATION if number else opcode, piece, fin=number == last) for number, piece in enumerate(pieces)
    )


def framing() -> Iterator[Case]:
    for opcode, name in ((TEXT, "text"), (BINARY, "binary")):
        for size in (0, 1, 125, 126, 127, 128, 65535, 65536):
            payload = (b"*" if opcode == TEXT else b"\xfe") * size
            yield Case(f"{name} of {size}", frame(opcode, payload), [Frame(opcode, payload)])
        yield Case(f"{name} in pieces of 997", frame(opcode, b"*" * 65536), [Frame(opcode, b"*" * 65536)], chop=997)
        yield Case(f"{name} without a mask", frame(opcode, b"*", masked=False), code=1002)


def pings() -> Iterator[Case]:
    for payload in (b"", b"Hello", bytes(range(0, 250, 5)), b"\xfe" * 125):
        yield Case(f"ping of {len(payload)}", frame(PING, payload), [Frame(PONG, payload)])
    yield Case("ping of 126", frame(PING, b"*" * 126), code=1002)
    yield Case("ping in octets", frame(PING, b"*" * 125), [Frame(PONG, b"*" * 125)], chop=1)
    yield Case("unasked pong", frame(PONG))
    yield Case("unasked pong with a payload", frame(PONG, b"unsolicited"))
    yield Case("unasked pong, ping", frame(PONG, b"unsolicited") + frame(PING, b"p"), [Frame(PONG, b"p")])
    for chop in (0, 1):
        ten = [b"payload-%d" % number for number in range(10)]
        sent = b"".join(frame(PING, each) for each in ten)
        yield Case(f"ten pings, in pieces of {chop}", sent, [Frame(PONG, each) for each in ten], chop=chop)
    yield Case("pong of 126", frame(PONG, b"*" * 126), code=1002)


def reserved_bits() -> Iterator[Case]:
    for rsv in range(1, 8):
        for opcode in (TEXT, BINARY, PING, PONG, CLOSE):
            yield Case(f"bits {rsv} of opcode {opcode}", frame(opcode, b"", rsv=rsv), code=1002)
        after = frame(TEXT, b"a") + frame(TEXT, b"b", rsv=rsv) + frame(PING)
        yield Case(f"bits {rsv} after a text", after, [Frame(TEXT, b"a")], 1002)
        yield Case(f"bits {rsv} in octets", after, [Frame(TEXT, b"a")], 1002, chop=1)


def opcodes() -> Iterator[Case]:
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield Case(f"opcode {opcode}", frame(opcode), code=1002)
        yield Case(f"opcode {opcode} with a payload", frame(opcode, b"reserved"), code=1002)
        after = frame(TEXT, b"a") + frame(opcode) + frame(PING)
        yield Case(f"opcode {opcode} after a text", after, [Frame(TEXT, b"a")], 1002)


def fragmentation() -> Iterator[Case]:
    for opcode, name in ((PING, "ping"), (PONG, "pong"), (CLOSE, "close")):
        yield Case(
            f"{name} in two fragments", frame(opcode, b"a", fin=False) + frame(CONTINUATION, b"b"), code=1002
        )
    one, two = frame(TEXT, b"fragment1", fin=False), frame(CONTINUATION, b"fragment2")
    both, pong = Frame(TEXT, b"fragment1fragment2"), Frame(PONG, b"p")
    for chop in (0, 1):
        yield Case(f"two fragments, pieces of {chop}", one + two, [both], chop=chop)
        yield Case(f"ping between, pieces of {chop}", one + frame(PING, b"p") + two, [pong, both], chop=chop)
        yield Case(f"unasked pong between, pieces of {chop}", one + frame(PONG, b"p") + two, [both], chop=chop)
    for fin in (True, False):
        lone = frame(CONTINUATION, b"none", fin=fin)
        yield Case(f"continuation of nothing, fin {fin}", lone + frame(TEXT, b"a"), code=1002)
        yield Case(f"continuation after a text, fin {fin}", frame(TEXT, b"a") + lone, [Frame(TEXT, b"a")], 1002)
        yield Case(f"continuation after fragments, fin {fin}", one + two + lone, [both], 1002)
    yield Case("a new text inside of one", one + frame(TEXT, b"fragment2"), code=1002)
    yield Case("a new binary inside of a text", one + frame(BINARY, b"fragment2"), code=1002)
    many = b"".join(frame(CONTINUATION, b"f", fin=False) + frame(PING, b"p") for _ in range(5))
    whole = frame(TEXT, b"f", fin=False) + many + frame(CONTINUATION, b"f")
    yield Case("pings between seven fragments", whole, [pong] * 5 + [Frame(TEXT, b"f" * 7)])
    yield Case("empty fragments", message(TEXT, b"", 1), [Frame(TEXT, b"")])
    empties = frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION)
    yield Case("three empty fragments", empties, [Frame(TEXT, b"")])
    middle = frame(TEXT, fin=False) + frame(CONTINUATION, b"middle", fin=False) + frame(CONTINUATION)
    yield Case("a middle between empty fragments", middle, [Frame(TEXT, b"middle")])


GOOD_TEXTS = [
    "\u03ba\u1f79\u03c3\u03bc\u03b5", "\x00", "\x7f", "\x80", "\u07ff", "\u0800", "\uffff", "\U00010000",
    "\ud7ff", "\ue000", "\ufffd", "\U0010ffff", "\ufeff", "\ufffe", "\ufdd0", "\U0001fffe", "\U0001f600" * 20,
]  # fmt: skip
BAD_TEXTS = [
    # Lone continuations, lone first bytes, missing last bytes.
    b"\x80", b"\xbf", b"\x80\xbf\x80", b"\xc0 ", b"\xdf ", b"\xe0 ", b"\xf0 ", b"\xc3", b"\xe0\xa0", b"\xef\xbf",
    b"\xf0\x90\x80", b"\xf7\xbf\xbf", b"\xf8\x88\x80\x80", b"\xfc\x84\x80\x80\x80",
    # Bytes that never occur, and forms that are too long.
    b"\xfe", b"\xff", b"\xfe\xfe\xff\xff", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf",
    b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf",
    b"\xf8\x87\xbf\xbf\xbf", b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80",
    # Surrogates, and numbers above the last character.
    b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf", b"\xed\xb0\x80", b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80",
    BAD,
]  # fmt: skip


def utf8() -> Iterator[Case]:
    for text in GOOD_TEXTS:
        payload = text.encode()
        for size in (len(payload), 1):
            yield Case(f"{text[:4]!r} in {size}", message(TEXT, payload, size), [Frame(TEXT, payload)])
    yield Case("text in octets", frame(TEXT, KAPPA), [Frame(TEXT, KAPPA)], chop=1)
    for payload in BAD_TEXTS:
        for size in (len(payload), 1):
            yield Case(f"{payload!r} in {size}", message(TEXT, payload, size), code=1007)
        yield Case(f"{payload!r} as binary", frame(BINARY, payload), [Frame(BINARY, payload)])
    # It must fail at the first fragment that cannot become valid, before the last one is sent.
    yield Case("fails before its end, surrogate", frame(TEXT, BAD, fin=False), code=1007)
    yield Case("fails before its end, too high", frame(TEXT, b"a\xf4\x90\x80\x80", fin=False), code=1007)


def closing() -> Iterator[Case]:
    yield Case("close without a code", frame(CLOSE), code=-1)
    yield Case("close with half a code", frame(CLOSE, b"\x03"), code=1002)
    yield Case("close with a reason", frame(CLOSE, close_payload(1000, b"done")), code=1000)
    yield Case("close with a reason of 123", frame(CLOSE, close_payload(1000, b"*" * 123)), code=1000)
    yield Case("close with a reason of 124", frame(CLOSE, close_payload(1000, b"*" * 124)), code=1002)
    yield Case("close with bad UTF-8", frame(CLOSE, close_payload(1000, BAD)), code=1007)
    for name, after in (("text", frame(TEXT, b"late")), ("ping", frame(PING)), ("close", frame(CLOSE))):
        yield Case(f"{name} after the close", frame(CLOSE, close_payload(1000)) + after, code=1000)
    yield Case(
        "close inside of a message", frame(TEXT, b"a", fin=False) + frame(CLOSE, close_payload(1000)), code=1000
    )
    big = frame(TEXT, b"*" * 262144)
    yield Case("close after a big message", big + frame(CLOSE, close_payload(1000)), code=1000)
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999):
        yield Case(f"close with {code}", frame(CLOSE, close_payload(code)), code=code)
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535):
        yield Case(f"close with {code}, which is not valid", frame(CLOSE, close_payload(code)), code=1002)


def limits() -> Iterator[Case]:
    for opcode in (TEXT, BINARY):
        for size in (1 << 16, 1 << 18, MEBIBYTE):
            payload = b"*" * size
            yield Case(f"{size} at once", frame(opcode, payload), [Frame(opcode, payload)])
            yield Case(f"{size} in 4 KiB", message(opcode, payload, 4096), [Frame(opcode, payload)])
        yield Case("more than the limit", frame(opcode, b"*" * (MEBIBYTE + 1)), code=1009)
        yield Case("more than the limit, in 64 KiB", message(opcode, b"*" * (MEBIBYTE + 1), 1 << 16), code=1009)
        endless = message(opcode, b"*" * (2 * MEBIBYTE), 1 << 16)[: MEBIBYTE + (1 << 18)]
        yield Case("more than the limit, without an end", endless, code=1009)
    yield Case("fragments of 1 byte", message(TEXT, b"*" * 4096, 1), [Frame(TEXT, b"*" * 4096)])
    huge = b"\x81\xff" + b"\x7f" + b"\xff" * 7 + b"\x12\x34\x56\x78"
    yield Case("the begin of a message of 2**63 - 1 bytes", huge + b"*" * (MEBIBYTE + (1 << 18)), code=1009)
    wrong = b"\x81\xff" + b"\xff" * 8 + b"\x12\x34\x56\x78"
    yield Case("a length with its highest bit", wrong, code=1002)
    yield Case("a length of 16 bits that needs 7", b"\x81\xfe\x00\x05\x12\x34\x56\x78hello", code=1002)


SECTIONS = {
    "framing": framing,
    "pings and pongs": pings,
    "reserved bits": reserved_bits,
    "opcodes": opcodes,
    "fragmentation": fragmentation,
    "UTF-8": utf8,
    "closing": closing,
    "limits": limits,
}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with running(tmp_path_factory.mktemp("conformance"), GUARDED_APP) as target:
        yield target
        assert target.complaints() == []


def fault_in(target: Target, case: Case) -> str | None:
    socket = RawSocket(target.port, "/echo", HEADERS, timeout=TIMEOUT)
    found: list[Frame | None] = []
    try:
        with suppress(BrokenPipeError, ConnectionResetError):
            socket.send(case.sent, case.chop)
        if case.code is None:
            found = [socket.receive() for _ in case.answers]
            socket.send(frame(CLOSE, close_payload(1000)))
        found += socket.wait_close()
    except (ConnectionError, TimeoutError) as error:
        return repr(error)
    finally:
        socket.close()
    wanted = {None: 1000, -1: None}.get(case.code, case.code)
    *answers, end = found or [Frame(-1, b"")]
    if end is None or end.opcode != CLOSE or end.code != wanted:
        return f"ended with {end!r:.200}, not with {wanted}"
    # What stands before a fault or a close may be answered, or not: the echo is another task.
    if answers != (case.answers if case.code is None else case.answers[: len(answers)]):
        return f"answered {answers!r:.200}"
    return None


@pytest.mark.parametrize("section", SECTIONS)
def test_section(target: Target, section: str) -> None:
    faults = {case.name: fault for case in SECTIONS[section]() if (fault := fault_in(target, case)) is not None}
    assert faults == {}


@pytest.mark.parametrize("sent", [frame(CLOSE, close_payload(1000)), frame(3)])
def test_the_connection_ends_after_the_close(target: Target, sent: bytes) -> None:
    socket = RawSocket(target.port, "/echo", HEADERS, timeout=TIMEOUT)
    socket.send(sent)
    assert [each.opcode for each in socket.wait_close()] == [CLOSE]
    assert socket.receive() is None
    socket.close()


def test_compression_is_not_agreed_on(target: Target) -> None:
    offer = {**HEADERS, "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
    socket = RawSocket(target.port, "/echo", offer)
    assert b"extensions" not in socket.head.lower()
    socket.close()


if __name__ == "__main__":
    for section, cases in SECTIONS.items():
        print(section, sum(1 for _ in cases()))  # noqa: T201
