"""Calls and utterances as rich renderables. Pure: the output depends only on the records."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from callmood.dashboard.reader import CallView
from callmood.schemas.alert import Alert
from callmood.schemas.call import Call, Direction, RoleEmotion, Status
from callmood.schemas.common import EMOTIONS, Emotion, Kind, Role
from callmood.schemas.parts import Probabilities
from callmood.schemas.utterance import Utterance

COLOURS: Final = {
    Emotion.ANGER: "red",
    Emotion.HAPPINESS: "green",
    Emotion.NEUTRAL: "grey70",
    Emotion.SADNESS: "dodger_blue1",
}
_ARROWS: Final = {
    Direction.IMPROVING: (" ↗", "green"),
    Direction.STEADY: (" →", "grey70"),
    Direction.WORSENING: (" ↘", "red"),
}
_MARKS: Final = {Status.LIVE: "", Status.COMPLETED: " ✓", Status.FAILED: " ✗"}
_SEVERITY_COLOURS: Final = {"info": "grey70", "warning": "yellow", "critical": "bold red"}
_LEVELS: Final = "▁▂▃▄▅▆▇█"
_WIDE: Final = 110
_NARROW: Final = 90
_DEMO_MODEL: Final = "demo"


def is_synthetic(model_id: str) -> bool:
    """Whether the model is the bundled demo, whose labels mean nothing for people's voices."""
    return model_id.startswith(_DEMO_MODEL)


def banner(views: Iterable[CallView]) -> Text | None:
    """What must be known before a label is believed, if anything."""
    models = {view.call.model.id for view in views if view.call.model}
    if not any(map(is_synthetic, models)):
        return None
    return Text(
        " DEMO MODEL trained on synthetic speech: labels say nothing about real people ",
        style="black on yellow",
    )


def call_table(views: Sequence[CallView], said: Mapping[str, Sequence[Utterance]], *, width: int) -> Table:
    """One row a call; `said` holds the newest utterances of each."""
    is_wide = width >= _WIDE
    bar, history = (16, 16) if is_wide else (8, 8)
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column("call", ratio=1, min_width=10, no_wrap=True, overflow="ellipsis")
    if width >= _NARROW:
        table.add_column("time", justify="right", no_wrap=True)
    table.add_column("talk c/a", justify="right", no_wrap=True)
    table.add_column("customer now", no_wrap=True)
    table.add_column(_legend(is_wide=is_wide), no_wrap=True)
    table.add_column("answers", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    if is_wide:
        table.add_column("risk", justify="right", no_wrap=True)
    table.add_column("delay", justify="right", no_wrap=True)
    for view in views:
        call, said_here = view.call, said.get(view.call.call_id, ())
        emotion = _emotion(call)
        cells = [
            Text(call.call_id + _MARKS[call.status]),
            *([Text(_clock(call.duration_ms))] if width >= _NARROW else []),
            Text(f"{_clock(_talk_ms(call, Role.CUSTOMER))}/{_clock(_talk_ms(call, Role.AGENT))}"),
            _now(emotion),
            _shares(emotion, bar),
            _history(said_here, history),
            _score(emotion),
            *([_risk(view.risk)] if is_wide else []),
            _delay(said_here),
        ]
        table.add_row(*cells, style="" if call.status is Status.LIVE else "dim")
    return table


def screen(
    views: Sequence[CallView], said: Mapping[str, Sequence[Utterance]], news: Iterable[Text], *, width: int
) -> RenderableType:
    """The whole picture: banner, calls, and the newest lines below."""
    live = sum(view.call.status is Status.LIVE for view in views)
    title = Text.assemble(("callmood", "bold"), f"  {live} live of {len(views)} calls shown")
    warning = banner(views)
    return Group(title, *([warning] if warning else []), call_table(views, said, width=width), *news)


def utterance_line(utterance: Utterance) -> Text:
    """One utterance in one line, in words and numbers only, so that it reads without colour too."""
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(utterance.call_id, style="bold")
    line.append(
        f" #{utterance.number} {_clock(utterance.start_ms)}-{_clock(utterance.end_ms)} {utterance.role.value:<8} "
    )
    emotion = utterance.emotion
    if utterance.kind is Kind.NOT_SPEECH:
        return line.append("not speech", style="dim")
    if emotion is None:
        return line.append(f"no emotion ({utterance.withheld})", style="dim")
    if emotion.label is None or emotion.probabilities is None or emotion.abstained:
        line.append(f"uncertain ({emotion.reason})", style="dim")
    else:
        line.append(f"{emotion.label.value:<9}", style=COLOURS[emotion.label])
    if utterance.latency_ms.total is not None:
        line.append(f" {utterance.latency_ms.total / 1000:.2f} s", style="dim")
    if emotion.probabilities is not None:
        shares = [f"{name.value} {getattr(emotion.probabilities, name.value):.2f}" for name in EMOTIONS]
        line.append("  " + "  ".join(shares), style="dim")
    return line


def alert_line(alert: Alert) -> Text:
    """One alert in one line."""
    style = _SEVERITY_COLOURS[alert.severity]
    return Text.assemble(("ALERT ", style), (alert.call_id, "bold"), f" {_clock(alert.raised_ms)} {alert.message}")


def call_line(call: Call) -> Text:
    """How a call ended, in one line."""
    emotion = _emotion(call)
    line = Text.assemble(
        (call.call_id, "bold"), f" {call.status.value}: {_clock(call.duration_ms)}, {call.utterances} utterances"
    )
    other_ms = sum(role.other_sound_ms for role in call.roles.values())
    if other_ms:
        line.append(f", {_clock(other_ms)} of other sounds")
    if emotion is None or emotion.overall_score is None:
        return line
    counts = ", ".join(f"{count} {name.value}" for name in EMOTIONS if (count := getattr(emotion.counts, name.value)))
    return line.append(f", customer score {emotion.overall_score:+.1f} ({counts})")


def _emotion(call: Call) -> RoleEmotion | None:
    """The customer's emotion, or that of the only other role that has one."""
    summary = call.roles.get(Role.CUSTOMER)
    if summary is None or summary.emotion is None:
        summary = next((role for role in call.roles.values() if role.emotion), None)
    return summary.emotion if summary else None


def _talk_ms(call: Call, role: Role) -> int:
    return call.roles[role].talk_ms if role in call.roles else 0


def _legend(*, is_wide: bool) -> Text:
    letters = 3 if is_wide else 1
    return Text(" ").join(Text(name.value[:letters], style=f"bold {COLOURS[name]}") for name in EMOTIONS)


def _now(emotion: RoleEmotion | None) -> Text:
    if emotion is None or emotion.last is None:
        return Text("…", style="dim")
    label = emotion.last.label
    share = getattr(emotion.last.probabilities, label.value)
    return Text.assemble((f"{label.value:<9}", f"bold {COLOURS[label]}"), (f" {share:>4.0%}", "dim"))


def _shares(emotion: RoleEmotion | None, width: int) -> Text:
    """The last probabilities as one bar of four colours."""
    bar = Text()
    if emotion is None or emotion.last is None:
        return Text("·" * width, style="dim")
    for name, cells in zip(EMOTIONS, _cells(emotion.last.probabilities, width), strict=True):
        bar.append("█" * cells, style=COLOURS[name])
    return bar


def _cells(probabilities: Probabilities, width: int) -> list[int]:
    """The bar's cells of each emotion: cut at the rounded running sums, so that they always fill it."""
    sums = [0.0, *accumulate(getattr(probabilities, name.value) for name in EMOTIONS)]
    edges = [round(width * part / sums[-1]) for part in sums]
    return [right - left for left, right in pairwise(edges)]


def _history(said: Sequence[Utterance], width: int) -> Text:
    """The newest answers with a label: height is pleasant minus unpleasant probability, colour is the label."""
    line = Text()
    labelled = [u.emotion for u in said if u.emotion and not u.emotion.abstained]
    for emotion in labelled[-width:]:
        assert emotion.label is not None
        assert emotion.probabilities is not None
        shares = emotion.probabilities
        mood = shares.happiness - shares.anger - shares.sadness
        level = min(len(_LEVELS) - 1, int((mood + 1) / 2 * len(_LEVELS)))
        line.append(_LEVELS[level], style=COLOURS[emotion.label])
    return line


def _score(emotion: RoleEmotion | None) -> Text:
    """The call's score, and where it is going."""
    if emotion is None or emotion.overall_score is None:
        return Text("…  ", style="dim")
    score = emotion.overall_score
    text = Text(f"{score:+.1f}", style="red" if score <= -1 else "green" if score >= 1 else "")
    return text.append(*_ARROWS[emotion.trend.direction]) if emotion.trend else text.append("  ")


def _risk(risk: float | None) -> Text:
    if risk is None:
        return Text("")
    return Text(f"{risk:.0%}", style="bold red" if risk >= 0.6 else "yellow" if risk >= 0.3 else "")  # noqa: PLR2004 - only colours


def _delay(said: Sequence[Utterance]) -> Text:
    totals = [u.latency_ms.total for u in said if u.latency_ms.total is not None]
    return Text(f"{totals[-1] / 1000:.1f} s" if totals else "")


def _clock(ms: int) -> str:
    minutes, seconds = divmod(ms // 1000, 60)
    return f"{minutes}:{seconds:02d}"
