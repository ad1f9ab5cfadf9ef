"""Calls in the terminal, live from Redis. If the output is not a terminal: one line per utterance."""

from collections import deque
from collections.abc import Collection
from time import monotonic
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from callmood.dashboard.reader import CallView, Dashboard, News
from callmood.dashboard.table import alert_line, banner, call_line, screen, utterance_line
from callmood.schemas.call import Status

if TYPE_CHECKING:
    from callmood.schemas.utterance import Utterance

_REFRESH_S: Final = 0.25
_NEWS_LINES: Final = 6
_REMEMBERED: Final = 64


class _Picture:
    """What is on the screen: the calls, what was said in them, and the newest lines."""

    def __init__(self, dashboard: Dashboard, until: Collection[str], limit: int) -> None:
        self.views: list[CallView] = []
        self.said: dict[str, deque[Utterance]] = {}
        self.lines: deque[Text] = deque(maxlen=_NEWS_LINES)
        self._dashboard = dashboard
        self._until = list(until)
        self._limit = limit

    def refresh(self) -> None:
        """Read the calls again; of a call seen for the first time, read also what was said before."""
        if self._until:
            self.views = self._dashboard.calls(self._until)
        else:
            self.views = self._dashboard.live_calls(self._limit)
        shown = {view.call.call_id for view in self.views}
        self.said = {call_id: said for call_id, said in self.said.items() if call_id in shown}
        for call_id in shown - self.said.keys():
            self.said[call_id] = deque(self._dashboard.utterances(call_id), maxlen=_REMEMBERED)

    def add(self, news: News) -> None:
        """Take what was published; of calls shown only."""
        for utterance in news.utterances:
            said = self.said.get(utterance.call_id)
            if said is not None and (not said or said[-1].number < utterance.number):
                said.append(utterance)

    @property
    def is_over(self) -> bool:
        """Whether all calls that were waited for have ended."""
        ended = {view.call.call_id for view in self.views if view.call.status is not Status.LIVE}
        return bool(self._until) and ended.issuperset(self._until)


def watch(
    dashboard: Dashboard,
    *,
    until: Collection[str] = (),
    limit: int = 20,
    timeout_s: float | None = None,
    console: Console | None = None,
) -> bool:
    """Show calls as they are published, until Ctrl-C.

    Args:
        dashboard: where to read.
        until: ids of the calls to show, in this order; returns once all of them have ended. Without any, the live
            calls of highest risk are shown, for ever.
        limit: number of calls shown when `until` names none.
        timeout_s: give up after this time.
        console: where to show; one that is no terminal gets a line per utterance, alert and ended call.

    Returns:
        Whether all calls of `until` have ended; False after Ctrl-C or `timeout_s`.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    console = console or Console()
    picture = _Picture(dashboard, until, limit)
    deadline_s = None if timeout_s is None else monotonic() + timeout_s
    show = _show_live if console.is_terminal else _show_lines
    try:
        return show(dashboard, picture, console, deadline_s)
    except KeyboardInterrupt:
        return False


def _show_live(dashboard: Dashboard, picture: _Picture, console: Console, deadline_s: float | None) -> bool:
    next_refresh_s = 0.0
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for news in dashboard.follow(timeout_s=_REFRESH_S):
            picture.add(news)
            picture.lines.extend(map(utterance_line, news.utterances))
            picture.lines.extend(map(alert_line, news.alerts))
            if monotonic() < next_refresh_s:
                continue
            next_refresh_s = monotonic() + _REFRESH_S
            picture.refresh()
            live.update(screen(picture.views, picture.said, [*picture.lines, *_notes(dashboard)], width=console.width))
            live.refresh()
            if picture.is_over or (deadline_s is not None and monotonic() > deadline_s):
                break
    return picture.is_over


def _show_lines(dashboard: Dashboard, picture: _Picture, console: Console, deadline_s: float | None) -> bool:
    was_warned, next_refresh_s = False, 0.0
    for news in dashboard.follow(timeout_s=_REFRESH_S):
        for line in (*map(utterance_line, news.utterances), *map(alert_line, news.alerts)):
            console.print(line, soft_wrap=True)
        if monotonic() < next_refresh_s:
            continue
        next_refresh_s = monotonic() + _REFRESH_S
        picture.refresh()
        warning = banner(picture.views)
        if warning and not was_warned:
            console.print(warning, soft_wrap=True)
            was_warned = True
        if picture.is_over or (deadline_s is not None and monotonic() > deadline_s):
            break
    for view in picture.views:
        console.print(call_line(view.call), soft_wrap=True)
    for note in _notes(dashboard):
        console.print(note, soft_wrap=True)
    return picture.is_over


def _notes(dashboard: Dashboard) -> list[Text]:
    if not dashboard.unreadable:
        return []
    return [Text(f"{dashboard.unreadable} records skipped: the workers' version differs from this one", style="yellow")]
