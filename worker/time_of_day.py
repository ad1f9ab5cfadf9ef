"""The time of day in a time zone, for a given time. It reads no clock."""

from datetime import datetime
from zoneinfo import ZoneInfo


def minute_of_day(at_ms: int, zone: ZoneInfo) -> int | None:
    """Minutes since midnight at this time (ms since 1970); None if it is in no calendar."""
    try:
        at = datetime.fromtimestamp(at_ms / 1000, zone)
    except (OverflowError, OSError, ValueError):
        return None
    return at.hour * 60 + at.minute
