"""A producer that sends what it should not, dealt by the seed among the records of good calls.

Whatever it sends, the good calls must come out exactly as without it, every record of it must be accounted for, and no
process may end. Its timestamps are those of the records around it, or absurd. Those never agree with a good gateway
whose clock is off (an hour ahead, in `telephony`): a producer that does is another good gateway to the clock.
"""

from random import Random

from callmood.bench import odd_records
from callmood.bench.odd_records import AUDIO, MEDIA
from tests.simulation.telephony import Arrival

KEY = b"odd-"
"""How the call ids of its own calls begin."""
_COPY_MS = 2_000
"""A copy that comes after its call is forgotten is a new call."""


def is_own(call_id: str) -> bool:
    """Whether a call is one of the hostile producer's.

    It uses ids again at any time. How long the id of a call that is over is refused depends on the watermark, so what
    comes of such calls depends on the commits.
    """
    return call_id.encode().startswith(KEY)


def among(random: Random, arrivals: list[Arrival]) -> list[Arrival]:
    """The arrivals, in their order, with odd ones among them."""
    share, mixed, ended = random.choice([0.02, 0.1, 0.5]), list[Arrival](), set[bytes | None]()
    own = [_Gateway(random, KEY + b"%d" % number) for number in range(random.choice([1, 3]))]
    for arrival in arrivals:
        mixed.append(arrival)
        ended |= {arrival.key} if ("event", b"end") in arrival.headers else set()
        while random.random() < share:
            near = mixed[-random.randint(1, min(len(mixed), 30))]
            kinds = [_bad_record, _bad_record, random.choice(own).record]
            if arrival.arrives_ms - near.arrives_ms < _COPY_MS:
                kinds.append(_copy)
            kind = random.choice(kinds)
            odd = kind(random, near)
            stamp = odd.stamp if odd.stamp is not None else random.choice(odd_records.STAMPS)
            capture_ms = arrival.capture_ms
            if kind is _copy and odd.key in ended:  # with an older timestamp, it is audio that the `end` has overtaken
                stamp, capture_ms = near.stamp, near.capture_ms
            mixed.append(odd._replace(arrives_ms=arrival.arrives_ms, capture_ms=capture_ms, stamp=stamp, is_odd=True))
    return mixed


def _bad_record(random: Random, near: Arrival) -> Arrival:
    """Nothing that the contract allows."""
    key, headers, value = odd_records.bad_record(random, near.key)
    return near._replace(key=key, headers=headers, value=value, stamp=None)


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
        fields = {**MEDIA} | {"seq": str(seq)} | random.choice([{}, {}, {"media_ms": str(seq * 100)}])
        fields |= random.choice([{}, {}, {}, {"stream": f"s{random.randrange(90)}"}, {"rate": "16000"}])
        fields |= random.choice([{}, {}, {}, {"attr__queue": "x"}, {"media_ms": "999999999"}, {"notice": "given"}])
        event = random.choice(["media"] * 8 + ["start", "pause", "resume", "end"])
        value = random.choice([AUDIO, random.randbytes(800), b"\x7f" * 40_000]) if event == "media" else b""
        return near._replace(
            key=self._key, headers=odd_records.fields(**fields | {"event": event}), value=value, stamp=None
        )
