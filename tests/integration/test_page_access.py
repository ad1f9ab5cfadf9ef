"""What the page refuses, and what it shows as text only: foreign queues, wrong tokens, odd ids, markup."""

import json
import os
import subprocess
import sys
from contextlib import closing

import pytest
from browsing import angry, answer
from playwright.sync_api import expect
from publisher import Publisher

from callmood.schemas.common import Emotion

pytestmark = pytest.mark.timeout(180)
_TOKEN = "a token of some length"


@pytest.fixture
def worker(redis_url, redis_prefix):
    """Publishes calls for the page."""
    with closing(Publisher(redis_url, redis_prefix)) as publishing:
        yield publishing


def test_markup_in_a_call_is_text(worker, served, browse):
    """Ids, attributes and names of queues never become elements or scripts."""
    evil = "<img src=x onerror=alert(1)>"
    angry(worker, evil, queue=evil, agent="<script>alert(2)</script>")
    address, _ = served()
    page = browse(address)
    expect(page.locator("table.wall")).to_contain_text(evil)
    assert page.locator("main img, main script").count() == 0
    page.locator("table.wall a").first.click()
    expect(page.locator("h1")).to_have_text(f"Call {evil}")
    expect(page.locator(".facts")).to_contain_text("<script>alert(2)</script>")
    assert page.locator("main img, main script").count() == 0


ODD_IDS = {
    "quotes": "\"'`&quot;",
    "slashes": "/a//b\\c?d=e#f",
    "dots in between": "a/../../login",
    "two dots": "..",
    "one dot": ".",
    "escapes": "%2e%2e%2f%zz",
    "emoji": "\N{PERSON FROWNING}\N{ZERO WIDTH JOINER}\N{FEMALE SIGN}",
    "right to left": "\N{RIGHT-TO-LEFT OVERRIDE}\N{RIGHT-TO-LEFT MARK}evil",
    "NUL": "a\0b",
    "line end": "a\n",
    "longest": "x" * 256,
    "blanks": " a b ",
}


_CLICK = """id => [...document.querySelectorAll("table.wall tr")].find(row => row.dataset.call === id)
  .querySelector("a").click()"""


def test_a_call_of_any_id_can_be_opened(worker, served, browse):
    """Its link on the wall leads to its page, which has its utterance."""
    for call_id in ODD_IDS.values():
        worker.say(call_id, Emotion.ANGER, attributes={"queue": call_id, "agent": call_id, "team": call_id})
    address, _ = served()
    page = browse(address)
    expect(page.locator("table.wall tbody tr")).to_have_count(len(ODD_IDS))
    for name, call_id in ODD_IDS.items():
        page.evaluate(_CLICK, call_id)
        expect(page.locator(".lanes rect.anger"), name).to_have_count(1)
        assert page.locator("h1").text_content() == f"Call {call_id}"
        page.goto(address)
        expect(page.locator("table.wall tbody tr")).to_have_count(len(ODD_IDS))


def test_an_address_that_nobody_would_link_to_is_answered(worker, served, browse):
    """A path with a wrong escape is a call that does not exist, and the page still reads the stream."""
    worker.say("a", Emotion.NEUTRAL)
    page = browse(f"{served()[0]}/calls/50%")
    expect(page.locator("#pulse")).to_contain_text("1 call ")
    expect(page.get_by_role("status")).to_contain_text("There is no such call")


def test_without_the_token_nothing_is_shown(worker, served, browse, tmp_path):
    """A wrong token, no cookie and a forged one are refused everywhere; the right token opens the wall."""
    angry(worker, "upset")
    (tmp_path / "token").write_text(f"{_TOKEN}\n")
    address, _ = served("--token-file", tmp_path / "token")
    for path, login in {"/": "/login", "/calls/upset": "/login?next=%2Fcalls%2Fupset"}.items():
        status, headers, text = answer(address + path)
        assert (status, headers["Location"], "upset" in text) == (303, login, False)
    for path in ("/events", "/api/calls/upset", "/api/calls/../calls/upset", "/static/../api/calls/upset"):
        assert answer(address + path)[0] in (401, 404), path
        assert answer(address + path, Cookie="callmood_session=9999999999.0")[0] in (401, 404), path
    page = browse(f"{address}/calls/upset")
    for token in ("a wrong token", _TOKEN):
        page.get_by_label("Token").fill(token)
        page.get_by_role("button").click()
        if token != _TOKEN:
            expect(page.get_by_text("No viewer has this token.")).to_be_visible()
    expect(page.locator("h1")).to_have_text("Call upset")
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
    assert (tmp_path / "page-0.log").read_text().count("login was refused") == 1


def test_each_viewer_sees_own_queues_only(worker, served, tmp_path, wait_until):
    """Another queue's call, its alerts and their claims are refused; the log says who opened and who was refused."""
    angry(worker, "mine", 6, queue="billing")
    angry(worker, "theirs", 6, queue="sales")
    (tmp_path / "access.toml").write_text(f"[kim]\ntoken = '{_TOKEN}'\nqueues = ['billing']\n")
    address, _ = served("--access-file", tmp_path / "access.toml", "--queue-header", "X-Queues")
    cookie = answer(f"{address}/login", f"token={_TOKEN}".encode())[1]["Set-Cookie"].partition(";")[0]

    def ask(path, queues="*", body=None):
        status, _, text = answer(address + path, body, Cookie=cookie, X_Queues=queues)
        return status, json.loads(text)

    assert [row["id"] for row in ask("/api/calls")[1]["calls"]] == ["mine"]
    alerts = ask("/api/alerts")[1]["alerts"]
    assert {alert["call_id"] for alert in alerts} == {"mine"}
    assert ask("/api/calls/mine")[0] == 200
    for path in ("theirs", "%74heirs", "theirs?after=1", "mine/../theirs", "?id=theirs", "theirs?id=mine"):
        assert ask(f"/api/calls/{path}")[0] in (403, 404), path
    assert ask("/api/claims", body={"alert_id": "theirs:negative_run:1", "by": "Kim", "note": ""})[0] == 400
    assert ask("/api/calls/mine", queues="sales")[0] == 403
    assert ask("/api/calls", queues="sales")[1]["live"] == 0
    worker.say("theirs", end=True)
    worker.say("mine", end=True)
    assert wait_until(lambda: {row["queue"] for row in ask("/api/trends")[1]["hours"]} == {"billing"})
    assert answer(f"{address}/api/calls", Cookie=cookie)[0] == 403
    log = (tmp_path / "page-0.log").read_text()
    assert log.count("call opened") == 1
    assert "kim" in log
    assert "call refused" in log


def test_requests_that_make_no_sense_are_refused(worker, served):
    """Each has its status, and the headers forbid foreign scripts and frames."""
    angry(worker, "upset")
    address, _ = served()
    status, headers, _ = answer(address)
    assert status == 200
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert answer(f"{address}/api/calls/unknown")[0] == 404
    for after in ("-1", "%C2%B2", "9" * 5_000, ""):
        assert answer(f"{address}/api/calls/upset?after={after}")[0] == 400, after
    for body in (b"no json", b"[" * 9_000, b"[]", rb'{"alert_id": "a", "by": "\ud800", "note": ""}'):
        assert answer(f"{address}/api/claims", body)[0] == 400, body[:40]
    assert answer(f"{address}/api/claims", {"alert_id": "unknown", "by": "Kim", "note": ""})[0] == 400
    assert answer(f"{address}/api/claims", b"x" * 20_000)[0] == 413
    assert answer(f"{address}/api/claims", {}, Origin="https://elsewhere.example.com")[0] == 403
    assert answer(f"{address}/static/../app.py")[0] == 404
    assert answer(f"{address}/static/%2e%2e/app.py")[0] == 404


def test_a_page_for_others_needs_a_token(redis_url):
    """Beyond this machine the command refuses to serve without one."""
    environment = os.environ | {"CALLMOOD_REDIS__URL": redis_url}
    command = [sys.executable, "-m", "callmood", "dashboard", "--host", "0.0.0.0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "set --token-file" in done.stderr) == (2, True), done.stderr
