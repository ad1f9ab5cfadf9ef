"""The alerts that each hook gets, and the signed request."""

import base64
import json
from pathlib import Path

import pytest

from callmood import schemas
from callmood.worker.commands.hooks import message_id, parse_hooks, signature
from callmood.worker.errors import ConfigurationError

ALERT = json.loads(
    (Path(schemas.__file__).parent / "examples/alert/valid/customer_negative.json").read_text(encoding="utf-8")
)
SECRET = "whsec_" + base64.b64encode(b"a secret of at least 24 bytes").decode()
HOOK = f'[crm]\nurl = "https://crm.example.com/hook"\nsecret = "{SECRET}"\n'


def hook(**more):
    """One hook with these fields."""
    (one,) = parse_hooks(HOOK + "".join(f"{name} = {json.dumps(value)}\n" for name, value in more.items()))
    return one


def test_the_signature_is_that_of_the_standard():
    """The example of the reference implementations of Standard Webhooks."""
    told = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", *told) == expected
    assert signature("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", *told) == expected


def test_a_request_carries_the_alert_and_its_link():
    """Every try has the same id; the call id is in no header."""
    one, call = hook(link="https://page.example.com/calls/{call}"), "Ä/1"
    alert = ALERT | {"call_id": call, "alert_id": f"{call}:run:1"}
    requests = [one.request(alert, now_s) for now_s in (1_750_000_000.0, 1_750_000_100.0)]
    (first, second), body = requests, json.loads(requests[0].data)
    assert first.get_header("Webhook-id") == second.get_header("Webhook-id") == message_id(f"{call}:run:1")
    assert first.get_header("Webhook-timestamp") == "1750000000"
    assert all(value.isascii() for _, value in first.header_items())
    assert body["data"] == {"alert": alert, "link": "https://page.example.com/calls/%C3%84%2F1"}
    assert (body["type"], body["timestamp"]) == ("callmood.alert.raised", "2025-06-15T15:06:40+00:00")
    name, stamp = first.get_header("Webhook-id"), first.get_header("Webhook-timestamp")
    assert first.get_header("Webhook-signature") == signature(SECRET, name, stamp, first.data)


def test_a_hook_wants_its_queues_and_rules():
    """Without them it wants all."""
    assert hook().wants(ALERT)
    assert hook(queues=["billing"]).wants(ALERT)
    assert not hook(queues=["sales"]).wants(ALERT)
    assert not hook(queues=["sales"]).wants({**ALERT, "attributes": {}})
    assert hook(rules=["customer_negative"], queues=["billing"]).wants(ALERT)
    assert not hook(rules=["long_silence"]).wants(ALERT)


def test_markup_in_a_message_to_slack_is_text():
    """Ids and queues make neither links nor mentions."""
    alert = ALERT | {"call_id": "<!channel>|x", "attributes": {"queue": "<@U1>"}}
    text = json.loads(hook(format="slack", link="https://page.example.com/{call}").request(alert, 0.0).data)["text"]
    assert "<!" not in text
    assert "<@" not in text
    assert "<https://page.example.com/%3C%21channel%3E%7Cx|&lt;!channel&gt; x>" in text


def test_a_message_to_teams_is_a_card_with_a_link():
    """Its texts are runs, which show markup as it is; without a link there is no button."""
    alert = ALERT | {"call_id": "[x](https://elsewhere.example.com)", "attributes": {"queue": "<at>all</at>"}}

    def card(**changes):
        sent = json.loads(hook(format="teams", **changes).request(alert, 0.0).data)
        (attached,) = sent["attachments"]
        assert (sent["type"], attached["contentType"]) == ("message", "application/vnd.microsoft.card.adaptive")
        return attached["content"]

    found = card(link="https://page.example.com/{call}")
    runs = [run for block in found["body"] for run in block["inlines"]]
    assert {block["type"] for block in found["body"]} == {"RichTextBlock"}
    assert runs[0] == {"type": "TextRun", "text": f"{alert['severity']}: {alert['message']}"}
    assert runs[1]["text"] == "call [x](https://elsewhere.example.com), queue <at>all</at>"
    assert [action["url"] for action in found["actions"]] == [
        "https://page.example.com/%5Bx%5D%28https%3A%2F%2Felsewhere.example.com%29"
    ]
    assert card()["actions"] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no hook"),
        ("[crm", "webhooks: "),
        ("x = 1", "put x into the table"),
        (HOOK.replace("https://", "file://"), r"\[crm\] url"),
        (HOOK.replace("https://", "https://kim:open-sesame@"), r"\[crm\] url: .*leave out user and password"),
        (HOOK.replace("example.com", "example.com:open-sesame"), r"\[crm\] url: .*a port that is not a number"),
        (HOOK.replace("crm.example.com", "[::1"), r"\[crm\] url"),
        (HOOK.replace("crm.example.com", ":80"), r"\[crm\] url: .*no host"),
        (HOOK.replace("/hook", "/h\u00f6\u00f6k"), r"\[crm\] url"),
        (HOOK + 'link = "https://kim:open-sesame@page.example.com/{call}"\n', r"\[crm\] link: .*leave out"),
        (HOOK.replace("whsec_", "whsec_!"), r"\[crm\] secret: .*24 bytes"),
        (HOOK.replace("[crm]", "['c r m']"), r"\[c r m\] name"),
        (HOOK + "queue = []\n", r"\[crm\] queue: Extra"),
        (HOOK + 'format = "fax"\n', r"\[crm\] format"),
    ],
)
def test_a_wrong_file_is_refused(text, message):
    """The message names the hook and the field, and shows no secret."""
    with pytest.raises(ConfigurationError, match=message) as error:
        parse_hooks(text)
    assert SECRET.removeprefix("whsec_") not in str(error.value)
    assert "open-sesame" not in str(error.value)
