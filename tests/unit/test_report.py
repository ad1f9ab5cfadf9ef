"""One call as one HTML file, without Redis."""

import copy
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from callmood import schemas
from callmood.__main__ import main
from callmood.dashboard.report import report
from callmood.schemas.call import Call
from callmood.schemas.utterance import Utterance
from callmood.worker.commands import report as command

EXAMPLES = Path(schemas.__file__).parent / "examples"
CALL = json.loads((EXAMPLES / "call/valid/completed.json").read_text(encoding="utf-8"))
UTTERANCES = [
    json.loads((EXAMPLES / f"utterance/valid/{name}.json").read_text(encoding="utf-8"))
    | {"call_id": "call-1", "number": number}
    for number, name in enumerate(("labelled", "abstained", "withheld", "not_speech", "inference_failed"), 1)
]


class Read(HTMLParser):
    """The elements and texts of a page."""

    def __init__(self, page):
        super().__init__()
        self.names, self.texts, self.attributes = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        """An element begins."""
        self.names.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        """Text."""
        self.texts.append(data)

    @property
    def text(self):
        """All text."""
        return " ".join(self.texts)


def made(call=None, utterances=UTTERANCES):
    return Read(
        report(Call.model_validate(call or CALL), [Utterance.model_validate(one) for one in utterances], "0.1.0")
    )


def test_it_says_all_of_the_call():
    """Reasons, alerts, stretches, uncertain parts, policy and model are in the text."""
    page = made()
    for text in (
        "Call call-1", "queue: billing", "Needed a look: negative, score -3.1", "negative_run", "cleared", "pause",
        "uncertain (low_confidence)", "uncertain (inference_failed)", "none (policy:role_agent)", "not speech",
        "Policy: emotion of customer", "Model: ", "SHA-256", "not what a person feels", "Audio that never arrived",
    ):  # fmt: skip
        assert text in page.text, text
    assert page.names.count("svg") == 1
    assert page.names.count("rect") == len(UTTERANCES) + len(CALL["spans"])


def test_it_needs_nothing_from_elsewhere():
    """No script, no link, no image; its policy forbids them too, and it is plain ASCII."""
    text = report(Call.model_validate(CALL), [Utterance.model_validate(one) for one in UTTERANCES], "0.1.0")
    page = Read(text)
    assert {"script", "link", "img", "iframe", "a"}.isdisjoint(page.names)
    assert {"src", "href", "onclick", "onload"}.isdisjoint(name for name, _ in page.attributes)
    assert dict(page.attributes)["content"].startswith("default-src 'none'")
    assert text.isascii()


def test_markup_in_a_call_is_text():
    """Ids and attributes never become elements; control characters are shown as such."""
    evil = "<script>alert(1)</script><img src=x>"
    page = made(CALL | {"call_id": evil, "attributes": {"queue": evil + "\x00", "</style>": "\N{SNOWMAN}\x1b[2J"}})
    assert {"script", "img"}.isdisjoint(page.names)
    assert page.text.count(evil) == 3
    assert "\x1b" not in page.text
    assert "\N{SNOWMAN}" in page.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\N{PERSON FROWNING}\N{ZERO WIDTH JOINER}\N{FEMALE SIGN}", None),
        ("\N{ARABIC LETTER MEEM}\N{ZERO WIDTH NON-JOINER}\N{ARABIC LETTER KHAH}", None),
        ("12\N{NO-BREAK SPACE}%", None),
        ("\U0001fae8", None),  # newer than Python's table of characters
        ("\N{RIGHT-TO-LEFT OVERRIDE}evil\N{POP DIRECTIONAL FORMATTING}", "\ufffdevil\ufffd"),
        ("a\tb\x7f", "a\ufffdb\ufffd"),
    ],
)
def test_names_of_all_languages_are_kept(text, shown):
    """Only controls are replaced."""
    assert f"queue: {shown or text}" in made(CALL | {"attributes": {"queue": text}}).text


def test_an_agents_emotion_is_left_out():
    """Even if the policy of the workers had a basis for it."""
    call, said = copy.deepcopy(CALL), UTTERANCES[0] | {"role": "agent"}
    policy = {"emotion_roles": ["customer", "agent"], "require_notice": False, "legal_basis": "consent"}
    call["roles"]["agent"]["emotion"] = call["roles"]["customer"]["emotion"]
    call["signs"] = [one | {"role": "agent"} for one in call["signs"]]
    page = made(call | {"policy": policy}, [said | {"policy": policy}])
    assert "No sign that a person was needed" in page.text
    assert f"anger {said['emotion']['probabilities']['anger']:.2f}" not in page.text
    assert page.text.count("emotion: counts") == 1


@pytest.mark.parametrize("started_at_ms", [0, 10**18])
def test_a_clock_that_is_off_costs_nothing(started_at_ms):
    """A file has no time of day, and a producer's clock may be beyond all years."""
    assert "Began" in made(CALL | {"started_at_ms": started_at_ms}).text


def test_a_call_without_anything_is_a_report():
    """It failed, and nothing was heard."""
    call = json.loads((EXAMPLES / "call/valid/failed_without_audio.json").read_text(encoding="utf-8"))
    assert "none analysed an utterance" in made(call, []).text


def test_the_command_reads_what_analyze_prints(tmp_path):
    """JSON lines in any order, of other calls and of newer releases too."""
    other = CALL | {"call_id": "other"}
    lines = [json.dumps(one | {"of_a_newer_release": 1}) for one in (other, *reversed(UTTERANCES), CALL)]
    (tmp_path / "results.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = ["report", "call-1", "--results", str(tmp_path / "results.jsonl"), "--output", str(tmp_path / "call.html")]
    assert main(words) == 0
    assert Read((tmp_path / "call.html").read_text(encoding="utf-8")).names.count("rect") == 7


def test_the_newest_version_of_a_call_is_told_with_its_utterances_in_order(tmp_path):
    """Also if an older one stands behind it."""
    versions = [CALL | {"version": version} for version in (2, 3, 1)]
    path = tmp_path / "results.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in (*versions, *reversed(UTTERANCES))), encoding="utf-8")
    call, utterances = command._from_file(path, "call-1")
    assert (call.version, [one.number for one in utterances]) == (3, [1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "line 1 is not JSON"),
        (b"[" * 100_000, "line 1 is not JSON"),
        (b'\n{"schema": "callmood.call/1", "call_id": "call-1"}', "line 2: version: Field required"),
        (b"\xff", "is not UTF-8"),
        (b"[1]\n7\n", "has no callmood.call/1 of call call-1"),
    ],
)
def test_a_file_that_is_no_result_is_refused(tmp_path, capsys, content, message):
    """Exit code 2, and the message names the line."""
    (tmp_path / "results.jsonl").write_bytes(content)
    assert main(["report", "call-1", "--results", str(tmp_path / "results.jsonl")]) == 2
    assert message in capsys.readouterr().err
