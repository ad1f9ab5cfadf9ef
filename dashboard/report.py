"""One call as one HTML file, for quality assurance: lanes, figures with their definitions, alerts, every utterance.

Pure: records in, text out. The file has no script and loads nothing. An agent's emotion is left out, even if the policy
of the workers allows it.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from xml.etree.ElementTree import Element, SubElement, tostring  # only writes

from callmood.schemas.call import Call, RoleEmotion
from callmood.schemas.common import EMOTIONS, Emotion, Kind, Role
from callmood.schemas.parts import Contract
from callmood.schemas.utterance import Utterance

_HIDDEN: Final = re.compile("[\0-\t\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
"""Controls, also those that turn the direction of the text that follows. Joiners within emoji and names are none."""
_LETTERS: Final = {Emotion.ANGER: "A", Emotion.SADNESS: "S", Emotion.NEUTRAL: "N", Emotion.HAPPINESS: "H"}
_WIDTH: Final = 1000
_LANE: Final = 26
_NAMES: Final = 90
_OF_CALL: Final = (
    "duration_ms", "talk_ms", "non_talk_ms", "longest_silence_ms", "overlap_ms", "hold_ms", "redacted_ms", "missing_ms",
)  # fmt: skip
_OF_ROLE: Final = ("utterances", "talk_ms", "other_sounds", "other_sound_ms", "skipped")
_OF_EMOTION: Final = ("utterances", "abstained", "overall_score")
_TICKS_S: Final = (10, 30, 60, 300, 600, 1800, 3600)
_STYLE: Final = """
body { font: 13px/1.4 sans-serif; color: #1b1f24; max-width: 72rem; margin: 1rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin: 1.2rem 0 .3rem; }
table { border-collapse: collapse; width: 100%; } tr { break-inside: avoid; }
caption { text-align: left; color: #4d5661; }
th, td { text-align: left; padding: .15rem .5rem; border-bottom: 1px solid #c7ccd3; overflow-wrap: anywhere; }
thead { display: table-header-group; } thead th { color: #4d5661; }
svg { width: 100%; border: 1px solid #c7ccd3; } svg text { font: 12px sans-serif; }
.uncertain { font-style: italic; }
@media print { body { margin: 0; max-width: none; } h2 { break-after: avoid; } }
"""
_FILL: Final = {"anger": "#d55e00", "sadness": "#0072b2", "happiness": "#009e73", "neutral": "#8a929c"}
_OUTLINED: Final = {"fill": "#ffffff", "stroke": "#1b1f24", "stroke-width": "3", "paint-order": "stroke"}
_ALERT: Final = "\N{BLACK UP-POINTING TRIANGLE}"
_LEGEND: Final = f"A anger, S sadness, N neutral, H happiness, ? uncertain, empty: not speech; {_ALERT} alert."
_CAVEAT: Final = (
    "A label estimates how a voice sounds in one utterance, not what a person feels. It depends on speaker, language "
    "and line. Uncertain utterances have no label and are in no figure of emotion. An agent's emotion is not shown."
)


def report(call: Call, utterances: Sequence[Utterance], version: str) -> str:
    """The HTML file of a call.

    Args:
        call: its newest record.
        utterances: all of it, in order.
        version: of callmood.
    """
    page = Element("html", lang="en")
    head, body = SubElement(page, "head"), SubElement(page, "body")
    SubElement(head, "meta", charset="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": policy})
    _text(head, "title", f"Call {call.call_id}")
    _text(head, "style", _STYLE)
    _text(body, "h1", f"Call {call.call_id}")
    for line in _facts(call):
        _text(body, "p", line)
    _lanes(body, call, utterances)
    _figures(body, call)
    _table(body, "Alerts", ("time", "alert", "severity", "state", "until"), _alerts(call))
    stretches = ((span.kind.value, clock(span.start_ms), clock(span.end_ms)) for span in call.spans)
    _table(body, "Stretches without audio, and hold", ("kind", "from", "to"), stretches)
    heads = ("#", "from", "to", "speaker", "label", "probabilities", "lost", "overlap", "level", "ended by")
    _table(body, "Utterances", heads, map(_row, utterances))
    _text(body, "h2", "How this was made")
    for line in (_CAVEAT, *_provenance(call, utterances, version)):
        _text(body, "p", line)
    markup: bytes = tostring(page, encoding="us-ascii", method="html")
    return f"<!doctype html>\n{markup.decode()}\n"


def clock(ms: int) -> str:
    """Minutes, seconds and tenths."""
    return f"{ms // 60_000}:{ms % 60_000 // 1000:02d}.{ms % 1000 // 100}"


def _text(parent: Element, name: str, text: str, **attributes: str) -> Element:
    made = SubElement(parent, name, attributes)
    made.text = _HIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
    return made


def _table(body: Element, title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    _text(body, "h2", title)
    rows = list(rows)
    if not rows:
        _text(body, "p", "None.")
        return
    table = SubElement(body, "table")
    first = SubElement(SubElement(table, "thead"), "tr")
    for head in heads:
        _text(first, "th", head, scope="col")
    lines = SubElement(table, "tbody")
    for row in rows:
        line = SubElement(lines, "tr")
        for cell in row:
            _text(line, "td", cell)


def _facts(call: Call) -> list[str]:
    told = {None: "not known", "given": "the caller was told", "not_given": "the caller was not told"}
    why = [sign.text for sign in call.signs if sign.role is not Role.AGENT]
    reason = f" ({call.end_reason.value})" if call.end_reason else ""
    return [
        f"Began {_wall_clock(call.started_at_ms)}; {call.status.value}{reason}, {clock(call.duration_ms)} long.",
        "; ".join(f"{name}: {text}" for name, text in call.attributes.items()) or "No attributes.",
        f"Notice that emotion is inferred: {told[call.notice]}.",
        f"Needed a look: {' · '.join(why)}." if why else "No sign that a person was needed.",
    ]


def _wall_clock(at_ms: int) -> str:
    """A producer's time; its clock may be years off."""
    if at_ms == 0:
        return "at a time that is not known"
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(sep=" ", timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"{at_ms} ms after 1970"


def _lanes(body: Element, call: Call, utterances: Sequence[Utterance]) -> None:
    """The call as a picture; the tables hold the same."""
    roles = sorted({utterance.role for utterance in utterances}, key=list(Role).index)
    height, length = _LANE * (len(roles) + 1) + 20, max([1, call.duration_ms, *(u.end_ms for u in utterances)])

    def x(ms: int) -> float:
        return round(_NAMES + _WIDTH * ms / length, 1)

    _text(body, "h2", "The call over time")
    box = {"viewBox": f"0 0 {_NAMES + _WIDTH + 10} {height}", "role": "img"}
    picture = SubElement(body, "svg", box | {"aria-label": "Lanes of the call; the tables below hold the same."})

    def bar(start_ms: int, end_ms: int, y: float, tall: float, **more: str) -> None:
        width = max(1.5, x(end_ms) - x(start_ms))
        SubElement(
            picture, "rect", {"x": f"{x(start_ms)}", "y": f"{y}", "width": f"{width:.1f}", "height": f"{tall}"} | more
        )

    def label(at: float, y: float, text: str, anchor: str = "middle", **more: str) -> None:
        _text(picture, "text", text, **{"x": f"{at:.1f}", "y": f"{y}", "text-anchor": anchor} | more)

    for span in call.spans:
        bar(span.start_ms, span.end_ms, 0, height - 20, fill="#e3e6ea", stroke="#8a929c")
        label(x(span.start_ms) + 2, height - 24, span.kind.value, "start")
    for place, role in enumerate(roles):
        label(2, _LANE * place + 17, role.value, "start")
    for utterance in utterances:
        y, said = _LANE * roles.index(utterance.role), _label(utterance)
        fill = _FILL.get(said, "#ffffff" if utterance.kind is Kind.NOT_SPEECH or said else "#aab3bf")
        bar(utterance.start_ms, utterance.end_ms, y + 3, _LANE - 6, fill=fill, stroke="#1b1f24")
        letter = _LETTERS[Emotion(said)] if said in _FILL else "?" if said.startswith("uncertain") else ""
        label((x(utterance.start_ms) + x(utterance.end_ms)) / 2, y + 17, letter, **_OUTLINED)
    for alert in call.alerts:
        label(x(alert.raised_ms), _LANE * len(roles) + 14, _ALERT)
    step_ms = 1000 * next((step for step in _TICKS_S if length <= step * 12_000), _TICKS_S[-1])
    for at_ms in range(0, length + 1, step_ms):
        label(x(at_ms), height - 5, clock(at_ms).partition(".")[0])
    _text(body, "p", _LEGEND)


def _figures(body: Element, call: Call) -> None:
    rows = [("call", *figure) for figure in _defined(call, _OF_CALL)]
    for role, summary in call.roles.items():
        rows += [(role.value, *figure) for figure in _defined(summary, _OF_ROLE)]
        count = "How often the role interrupted another speaker."
        rows.append((role.value, "interruptions", str(summary.interruptions.count), count))
        if summary.emotion and role is not Role.AGENT:
            rows += [(role.value, *figure) for figure in _felt(summary.emotion)]
    _table(body, "Figures", ("of", "figure", "value", "definition"), rows)


def _felt(emotion: RoleEmotion) -> list[tuple[str, str, str]]:
    counts = ", ".join(f"{name} {getattr(emotion.counts, name)}" for name in EMOTIONS)
    quarters = [getattr(emotion.quarter_scores, f"q{n}") for n in range(1, 5)]
    scores = ", ".join("none" if score is None else f"{score:+.1f}" for score in quarters)
    trend = (
        f"{emotion.trend.direction.value}, {emotion.trend.slope_per_min:+.2f} per minute" if emotion.trend else "none"
    )
    described = RoleEmotion.model_fields
    return [
        *((f"emotion: {name}", value, meaning) for name, value, meaning in _defined(emotion, _OF_EMOTION)),
        ("emotion: counts", counts, described["counts"].description or ""),
        ("emotion: scores of quarters", scores, "Score of each quarter of the call, -5 (negative) to +5."),
        ("emotion: trend", trend, described["trend"].description or ""),
    ]


def _defined(record: Contract, names: Iterable[str]) -> list[tuple[str, str, str]]:
    """Name, value and definition of figures."""
    figures = []
    for name in names:
        value: Any = getattr(record, name)
        shown = "none" if value is None else clock(value) if name.endswith("_ms") else f"{value:g}"
        meaning = (type(record).model_fields[name].description or "").replace(", ms", "").replace("`", "")
        figures.append((name.removesuffix("_ms").replace("_", " "), shown, meaning))
    return figures


def _alerts(call: Call) -> Iterable[Sequence[str]]:
    for alert in call.alerts:
        until = "" if alert.over_ms is None else clock(alert.over_ms)
        yield clock(alert.raised_ms), alert.rule, alert.severity.value, alert.state.value, until


def _label(utterance: Utterance) -> str:
    """The label in a word; empty where there is none to show."""
    emotion = utterance.emotion
    if emotion is None or utterance.role is Role.AGENT:
        return ""
    return f"uncertain ({emotion.reason})" if emotion.abstained or emotion.label is None else emotion.label.value


def _row(utterance: Utterance) -> Sequence[str]:
    emotion = utterance.emotion if utterance.role is not Role.AGENT else None
    shares = emotion.probabilities if emotion else None
    withheld = "not speech" if utterance.kind is Kind.NOT_SPEECH else f"none ({utterance.withheld or 'agent'})"
    return (
        str(utterance.number),
        clock(utterance.start_ms),
        clock(utterance.end_ms),
        f"{utterance.role.value} (stream {utterance.stream}, channel {utterance.channel})",
        _label(utterance) or withheld,
        ", ".join(f"{name} {getattr(shares, name):.2f}" for name in EMOTIONS) if shares else "",
        f"{utterance.quality.missing_ms} ms",
        f"{utterance.quality.overlap_ms} ms",
        f"{utterance.acoustics.rms_dbfs:.0f} dBFS",
        utterance.quality.cut,
    )


def _provenance(call: Call, utterances: Sequence[Utterance], version: str) -> list[str]:
    roles = ", ".join(role.value for role in call.policy.emotion_roles) or "nobody"
    basis = f"; legal basis: {call.policy.legal_basis}" if call.policy.legal_basis else ""
    notice = "; only with notice" if call.policy.require_notice else ""
    models = sorted({(u.model.id, u.model.version, u.model.digest) for u in utterances if u.model})
    records = [record.model_dump(mode="json", by_alias=True) for record in (call, *utterances)]
    digest = hashlib.sha256(json.dumps(records, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return [
        f"Policy: emotion of {roles}{notice}{basis}.",
        *(f"Model: {name} {number}, {sha}." for name, number, sha in models),
        *([] if models else ["Model: none analysed an utterance of this call."]),
        f"Made by callmood {version} from a call/1 and {len(utterances)} utterance/1 records, SHA-256 {digest}.",
    ]
