"""A producer that sends what it should not, dealt by the seed among the records of good calls.

Whatever it sends, the good calls must come out exactly as without it, every record of it must be accounted for, and no
process may end. Its timestamps are those of the records around it, or absurd. Those never agree with a good gateway
whose clock is off (an hour ahead, in `telephony`): a producer that does is another good gateway to the clock.
"""

import json
from collections.abc import Callable
from random import Random

from tests.simulation.telephony import Arrival

KEY = b"odd-"
"""How the call ids of its own calls begin."""
_MEDIA = {"schema": "callmood.audio/1", "event": "media", "encoding": "pcmu", "rate": "8000", "layout": "customer"}
_AUDIO = b"\x7f\xff" * 400
_STAMPS = (None, None, None, -1, 0, 1, 2**63 - 1, 4_102_444_800_000, 1_700_000_000_000_000, 1_700_010_800_000)
_COPY_MS = 2_000
"""A copy that comes after its call is forgotten is a new call."""
_TWILIO = {"event": "media", "streamSid": "MZ1", "media": {"track": "inbound", "chunk": "1", "payload": "//8="}}


def is_own(call_id: str) -> bool:
    """Whether a call is one of the hostile producer's.

    It uses ids again at any time. How long the id of a call that is over is refused depends on the watermark, so what
    comes of such calls depends on the commits.
    """
    return call_id.encode().startswith(KEY)


Headers = tuple[tuple[str, bytes | None], ...]


def among(random: Random, arrivals: list[Arrival]) -> list[Arrival]:
    """The arrivals, in their order, with odd ones among them."""
    share, mixed = random.choice([0.02, 0.1, 0.5]), []
    own = [_Gateway(random, KEY + b"%d" % number) for number in range(random.choice([1, 3]))]
    for arrival in arrivals:
        mixed.append(arrival)
        while random.random() < share:
            near = mixed[-random.randint(1, min(len(mixed), 30))]
            kinds = [_bad_record, _bad_record, random.choice(own).record]
            if arrival.arrives_ms - near.arrives_ms < _COPY_MS:
                kinds.append(_copy)
            odd = random.choice(kinds)(random, near)
            stamp = odd.stamp if odd.stamp is not None else random.choice(_STAMPS)
            mixed.append(
                odd._replace(arrives_ms=arrival.arrives_ms, capture_ms=arrival.capture_ms, stamp=stamp, is_odd=True)
            )
    return mixed


def _fields(**fields: str) -> Headers:
    return tuple((name.replace("__", "."), text.encode()) for name, text in fields.items())


def _bad_record(random: Random, near: Arrival) -> Arrival:
    """Nothing that the contract allows, under no key, a strange key, or that of a good call."""
    key = random.choice([None, b"", b"\xff\xfe", b"line\nfeed", b"x" * 300, b"gateway-7", near.key])
    is_nameless = key in (None, b"", b"\xff\xfe", b"line\nfeed") or len(key or b"") > 256
    change = random.choice(_CHANGES)
    headers, value = change(random)
    if is_nameless and random.random() < 0.5:  # then the key alone is wrong
        headers, value = _fields(**_MEDIA, seq="0"), _AUDIO
    return near._replace(key=key, headers=headers, value=value, stamp=None)


def _with(
    value: bytes | None = _AUDIO, without: str = "", **changed: str
) -> Callable[[Random], tuple[Headers, bytes | None]]:
    fields = {name: text for name, text in (_MEDIA | {"seq": "0"} | changed).items() if name != without}
    return lambda _: (_fields(**fields), value)


def _raw(
    *headers: tuple[str, bytes | None], value: bytes | None = _AUDIO
) -> Callable[[Random], tuple[Headers, bytes | None]]:
    return lambda _: ((*_fields(**_MEDIA, seq="0"), *headers), value)


_CHANGES: tuple[Callable[[Random], tuple[Headers, bytes | None]], ...] = (
    lambda _: ((), None),
    lambda _: ((), b""),
    lambda random: ((), random.randbytes(random.choice([1, 200, 300_000]))),
    lambda _: ((), json.dumps(_TWILIO).encode()),
    lambda _: ((), json.dumps(_MEDIA | {"seq": 0, "audio": "//8="}).encode()),
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
    _raw(("notice", b"\xff")),
    _raw(("x-\udcff", b"")),
    _raw(("attr.queue", None), ("traceparent", b"\xff")),
)


def _copy(_: Random, near: Arrival) -> Arrival:
    """A record that was sent before, again; a copy in a pause is no `pause`."""
    is_switch = any(value in (b"pause", b"resume", b"start") for name, value in near.headers if name == "event")
    return near._replace(key=None, stamp=near.stamp) if is_switch or near.is_odd else near


class _Gateway:
    """Calls of its own: legal records in a wrong order, under numbers that begin again, in changing formats."""

    def __init__(self, random: Random, key: bytes) -> None:
        self._key = key
        self._seqs = [random.choice([n, n, n, 0, 40 - n, n * 1_000_000_000]) for n in range(40)]
        self._sent = 0

    def record(self, random: Random, near: Arrival) -> Arrival:
        """The next record."""
        seq = self._seqs[self._sent % len(self._seqs)]
        self._sent += 1
        fields = _MEDIA | {"seq": str(seq)} | random.choice([{}, {}, {"media_ms": str(seq * 100)}])
        fields |= random.choice([{}, {}, {}, {"stream": f"s{random.randrange(90)}"}, {"rate": "16000"}])
        fields |= random.choice([{}, {}, {}, {"attr__queue": "x"}, {"media_ms": "999999999"}, {"notice": "given"}])
        event = random.choice(["media"] * 8 + ["start", "pause", "resume", "end"])
        value = random.choice([_AUDIO, random.randbytes(800), b"\x7f" * 40_000]) if event == "media" else b""
        return near._replace(key=self._key, headers=_fields(**fields | {"event": event}), value=value, stamp=None)
