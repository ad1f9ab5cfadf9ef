"""Records that the contract does not allow, as a hostile or broken producer sends them; for measurements and tests."""

import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Final

Headers = tuple[tuple[str, bytes | None], ...]
Made = tuple[Headers, bytes | None]
"""Headers and value of a record."""

MEDIA: Final[Mapping[str, str]] = {
    "schema": "callmood.audio/1",
    "event": "media",
    "encoding": "pcmu",
    "rate": "8000",
    "layout": "customer",
}
"""Headers of legal audio."""
AUDIO: Final = b"\x7f\xff" * 400
STAMPS: Final = (
    *(None, None, None),
    *(-1, 0, 1, 2**63 - 1),
    *(4_102_444_800_000, 1_700_000_000_000_000, 1_700_010_800_000),
)
"""Timestamps: None is that of the records around it; the others are none, in another unit or of another year."""

_LARGE_BYTES: Final = 2_000
_NO_CALL_IDS: Final = (None, b"", b"\xff\xfe", b"line\nfeed", b"x" * 300)
_TWILIO: Final = {"event": "media", "streamSid": "MZ1", "media": {"track": "inbound", "chunk": "1", "payload": "//8="}}


def fields(**named: str) -> Headers:
    """These headers; `__` stands for the dot in a name."""
    return tuple((name.replace("__", "."), text.encode()) for name, text in named.items())


def bad_record(random: Random, near_key: bytes | None) -> tuple[bytes | None, Headers, bytes | None]:
    """Nothing that the contract allows, under no key, a strange key, or that of a good call: key, headers, value."""
    key = random.choice([*_NO_CALL_IDS, b"gateway-7", near_key])
    if key in (*_NO_CALL_IDS, None) and random.choice([False, True]):  # then the key alone is wrong
        return key, fields(**MEDIA, seq="0"), AUDIO
    headers, value = random.choice(_CHANGES)(random)
    return key, headers, value


def bad_record_to_send(
    random: Random, near_key: bytes | None, large: float
) -> tuple[bytes | None, list[tuple[str, bytes]], bytes | None]:
    """As `bad_record`, but one that kafka-python can send: no null among the headers, and no odd name.

    Args:
        random: what decides.
        near_key: key of a good call.
        large: share that is kept of records above 2 kB.
    """
    while True:
        key, headers, value = bad_record(random, near_key)
        sent = [(name, text) for name, text in headers if text is not None and name.isascii()]
        size = len(value or b"") + sum(len(text) for _, text in sent)
        if len(sent) == len(headers) and (size <= _LARGE_BYTES or random.random() < large):
            return key, sent, b"" if key is None and value is None else value


def _with(*value: bytes | None, without: str = "", **changed: str) -> Callable[[Random], Made]:
    named = {name: text for name, text in {**MEDIA, "seq": "0", **changed}.items() if name != without}
    return lambda _: (fields(**named), value[0] if value else AUDIO)


def _raw(*headers: tuple[str, bytes | None], value: bytes | None = AUDIO) -> Callable[[Random], Made]:
    return lambda _: ((*fields(**MEDIA, seq="0"), *headers), value)


_CHANGES: tuple[Callable[[Random], Made], ...] = (
    lambda _: ((), None),
    lambda _: ((), b""),
    lambda random: ((), random.randbytes(random.choice([1, 200, 300_000]))),
    lambda _: ((), json.dumps(_TWILIO).encode()),
    lambda _: ((), json.dumps({**MEDIA, "seq": 0, "audio": "//8="}).encode()),
    lambda _: ((), b"[" * 100_000),
    _with(None),
    _with(b""),
    _with(b"\x7f" * 401, layout="customer,agent"),
    _with(b"\x7f" * 300_000),
    _with(without="schema"),
    _with(without="seq"),
    _with(without="rate"),
    _with(schema="callmood.audio/2"),
    _with(seq="-1"),
    _with(seq="1e3"),
    _with(seq="9" * 30),
    _with(stream="s" * 300),
    _with(encoding="opus"),
    _with(rate="0"),
    _with(layout=",".join(["customer"] * 9)),
    _with(layout="customer,Agent"),
    _with(media_ms="nan"),
    _with(media_ms="-5"),
    _with(event="hold"),
    _with(event="start"),
    _with(event="gap"),
    _with(b"", event="gap"),
    _with(notice="maybe"),
    _with(**{f"attr__{n}": "x" for n in range(65)}),
    _with(attr__long="x" * 100_000),
    _raw(("stream", None)),
    _raw(("attr.queue", None)),
    _raw(("notice", b"\xff")),
    _raw(("x-\udcff", b"")),
    _raw(("attr.queue", None), ("traceparent", b"\xff")),
)
