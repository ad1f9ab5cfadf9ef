"""The page for supervisors: a real browser, the real server, and results in a real Redis."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import jsonschema
import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright
from publisher import Publisher
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from callmood import schemas
from callmood.schemas.common import Emotion
from callmood.schemas.keys import Keys
from deploy.local.nursery import free_port

pytestmark = pytest.mark.timeout(180)
_TOKEN = "a token of some length"


@pytest.fixture
def worker(redis_url, redis_prefix):
    with closing(Publisher(redis_url, redis_prefix)) as publishing:
        yield publishing


@pytest.fixture
def served(redis_url, redis_prefix, tmp_path):
    """`served(*options, port)` starts the page and waits for it; its address, and its process."""
    processes = []

    def start(*options, port=None, redis_url=redis_url):
        port = port or free_port()
        environment = os.environ | {"CALLMOOD_REDIS__URL": redis_url, "CALLMOOD_REDIS__PREFIX": redis_prefix}
        command = [sys.executable, "-m", "callmood", "dashboard", "--port", str(port), *map(str, options)]
        with (tmp_path / f"page-{len(processes)}.log").open("w") as log:
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        address = f"http://127.0.0.1:{port}"
        deadline_s = time.monotonic() + 60
        while answer(f"{address}/healthz")[0] != 200:
            assert time.monotonic() < deadline_s, (tmp_path / "page-0.log").read_text()
            time.sleep(0.1)
        return address, processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def chromium():
    """Debian's Chromium."""
    path = shutil.which("chromium")
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium):
    """`browse(address)` opens a page; nothing may be refused by its content security policy or fail in its scripts."""
    contexts, troubles = [], []

    def opened(address, **options):
        contexts.append(chromium.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "console", lambda message: troubles.append(message.text) if "Content Security" in message.text else None
        )
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []


def answer(address, body=None, **headers):
    """Status, headers and text of an answer; redirects are not followed."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(address, data=data, headers={k.replace("_", "-"): v for k, v in headers.items()})
    opener = urllib.request.build_opener(_Stay)
    try:
        with opener.open(request, timeout=10) as response:
            return response.status, response.headers, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()
    except OSError as error:
        return 0, {}, str(error)


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def problems(path, body):
    """What in the body of an answer is not as schemas/openapi.yaml says."""
    folder = Path(schemas.__file__).parent
    document = yaml.safe_load((folder / "openapi.yaml").read_text(encoding="utf-8"))
    schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    files = {f"json/{one.name}": json.loads(one.read_text(encoding="utf-8")) for one in (folder / "json").glob("*")}
    resources = [(name, DRAFT202012.create_resource(one)) for name, one in files.items()]
    validator = jsonschema.Draft202012Validator(
        {"components": document["components"]} | schema, registry=Registry().with_resources(resources)
    )
    return [error.message for error in validator.iter_errors(body)]


def angry(worker, call_id, times=4, **attributes):
    for _ in range(times):
        worker.say(call_id, Emotion.ANGER, attributes=attributes)


def test_a_supervisor_finds_the_call_that_needs_help(worker, served, browse):
    """Calls appear, the angry one first with the reason; its lanes grow; once over, it leaves the wall."""
    worker.say("calm", Emotion.NEUTRAL, attributes={"queue": "sales"})
    address, _ = served(
        "--listen", "https://phone.example.com/?call={call}", "--recording", "https://rec.example.com/{call}?ms={ms}"
    )
    page = browse(address)
    expect(page.locator("table.wall tbody tr")).to_have_count(1)
    angry(worker, "upset/1", queue="billing", agent="Kim")
    first = page.locator("table.wall tbody tr").first
    expect(first).to_contain_text("anger 4 times in a row")
    expect(first).to_contain_text("billing")
    expect(page.locator("#pulse")).to_contain_text("2 calls · 1 needs a look")
    expect(first.get_by_role("link", name="listen")).to_have_attribute(
        "href", "https://phone.example.com/?call=upset%2F1"
    )
    first.get_by_role("link", name="upset/1", exact=True).click()
    expect(page.locator(".lanes rect.anger")).to_have_count(4)
    worker.say("upset/1")
    expect(page.locator(".lanes rect.plain")).to_have_count(1)
    page.locator(".lanes").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".detail")).to_contain_text("Utterance 1: customer")
    expect(page.get_by_role("link", name="listen")).to_have_attribute(
        "href", "https://phone.example.com/?call=upset%2F1"
    )
    expect(page.get_by_role("link", name=re.compile("recording"))).to_have_attribute(
        "href", "https://rec.example.com/upset%2F1?ms=5000"
    )
    page.goto(address)
    worker.say("upset/1", Emotion.ANGER, end=True)
    expect(page.locator("table.wall tbody tr")).to_have_count(1)
    expect(page.locator("table.wall")).to_contain_text("calm")


def test_a_team_is_chosen_and_a_call_without_news_is_marked(worker, served, browse):
    """The filter has the teams of the live calls; after two minutes without news a row says so."""
    worker.say("a", Emotion.ANGER, attributes={"team": "north"})
    worker.say("b", Emotion.ANGER, attributes={"team": "south"})
    address, _ = served()
    page = browse(address)
    page.clock.install()
    page.goto(address)
    expect(page.locator("table.wall tbody tr")).to_have_count(2)
    page.get_by_label("Team").select_option("south")
    expect(page.locator("table.wall tbody tr")).to_have_count(1)
    expect(page.locator("table.wall tbody")).to_contain_text("b")
    assert page.url == f"{address}/?team=south"
    page.clock.fast_forward("02:30")
    expect(page.locator("table.wall tbody tr.late")).to_contain_text("then no news for 2:00")
    worker.say("b", Emotion.ANGER)
    expect(page.locator("table.wall tbody tr.late")).to_have_count(0)


def test_an_alert_is_claimed_once(worker, served, browse, redis_client, redis_prefix):
    """Two supervisors see it, one claims it, and both see who; the claim is in Redis."""
    address, _ = served()
    one, other = browse(f"{address}/alerts"), browse(f"{address}/alerts")
    angry(worker, "upset", 6)
    for page in (one, other):
        expect(page.locator("tbody tr").first).to_contain_text("open")
    one.get_by_label("Your name").fill("Kim")
    one.get_by_label("Note").fill("called back")
    one.get_by_role("button", name=re.compile("claim sustained_negative")).click()
    for page in (one, other):
        expect(page.locator("tbody")).to_contain_text("claimed by Kim")
        expect(page.locator("tbody")).to_contain_text("called back")
    claims = {name: json.loads(text) for name, text in redis_client.hgetall(Keys(redis_prefix).claims).items()}
    ((alert_id, claim),) = claims.items()
    assert (alert_id.split(":")[1], claim["by"]) == ("sustained_negative", "Kim")
    status, _, text = answer(f"{address}/api/claims", {"alert_id": alert_id, "by": "Ada", "note": ""})
    assert (status, json.loads(text)) == (409, {"first": False})


def test_the_page_survives_a_restart_of_its_server(worker, served, browse):
    """With a stream open the server ends within a second; the page says that it is not fresh, and then is again."""
    worker.say("before", Emotion.NEUTRAL)
    address, process = served()
    page = browse(address)
    expect(page.locator("table.wall")).to_contain_text("before")
    began_s = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) in (0, -signal.SIGTERM)
    assert time.monotonic() - began_s < 2
    expect(page.locator("#trouble")).to_contain_text("No connection to the server", timeout=20_000)
    worker.say("after", Emotion.NEUTRAL)
    served(port=int(address.rpartition(":")[2]))
    expect(page.locator("table.wall")).to_contain_text("after", timeout=30_000)
    expect(page.locator("#trouble")).to_be_hidden()


def test_calls_alerts_and_the_pulse_follow_redis(worker, served, browse):
    """An alert is open, then cleared; a call that ends is still found; a pipeline that stands still is named."""
    angry(worker, "upset", 6, queue="billing")
    address, _ = served()
    page, alerts = browse(address), browse(f"{address}/alerts")
    expect(alerts.locator("tbody")).to_contain_text("open")
    for _ in range(8):
        worker.say("upset", Emotion.HAPPINESS)
    expect(alerts.locator("tbody")).to_contain_text("cleared at")
    worker.say("upset", end=True)
    expect(page.locator("#pulse")).to_contain_text("quiet, workers are running")
    expect(page.get_by_text("Ended recently: the newest 1, of which 0 needed a look")).to_be_visible()
    page.locator(".ended").get_by_role("link", name="upset").click()
    expect(page.locator(".events")).to_contain_text("sustained negative, cleared at")
    expect(alerts.locator("#trouble")).to_contain_text("No worker has written results of audio:0", timeout=40_000)


def test_the_page_survives_a_restart_of_redis(own_redis, redis_prefix, served, browse):
    """It says that it is not fresh, keeps what it had, and shows the calls of the new server when there is one."""
    start, url = own_redis
    running = start()
    with closing(Publisher(url, redis_prefix)) as worker:
        worker.say("before", Emotion.NEUTRAL)
        page = browse(served(redis_url=url)[0])
        expect(page.locator("table.wall")).to_contain_text("before")
        running.process.kill()
        expect(page.locator("#trouble")).to_contain_text("Redis does not answer")
        expect(page.locator("table.wall")).to_contain_text("before")
    start()
    with closing(Publisher(url, redis_prefix)) as worker:
        worker.say("after", Emotion.SADNESS)
        expect(page.locator("table.wall")).to_contain_text("after", timeout=30_000)
        expect(page.locator("#trouble")).to_be_hidden()


def test_without_emotion_the_page_shows_who_needs_help(worker, served, browse):
    """Only agents are heard here: interruptions and silence are reasons all the same."""
    for _ in range(4):
        worker.say("quiet")
    worker.say("quiet", attributes={"queue": "support"}, pause_ms=45_000)
    page = browse(served()[0])
    expect(page.locator("table.wall tbody tr").first).to_contain_text(re.compile(r"silence 4\d s"))
    expect(page.locator("table.wall tbody tr").first).to_contain_text("support")


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
    expect(page.locator(".facts")).to_contain_text("There is no such call")


def test_after_the_last_call_the_ended_calls_are_open(worker, served, browse):
    """They say which needed a look, and why; a list that the viewer has closed stays closed."""
    angry(worker, "upset")
    page = browse(served()[0])
    expect(page.locator("table.wall tbody tr")).to_have_count(1)
    expect(page.locator("details.ended")).to_be_hidden()
    worker.say("upset", end=True)
    expect(page.locator("details.ended tbody tr")).to_contain_text("anger 4 times in a row")
    expect(page.locator("details.ended tbody tr")).to_be_visible()
    page.locator("details.ended summary").click()
    worker.say("calm", Emotion.NEUTRAL, end=True)
    expect(page.locator("details.ended summary")).to_contain_text("the newest 2, of which 1 needed a look")
    expect(page.locator("details.ended tbody tr").first).to_be_hidden()


def test_without_the_token_nothing_is_shown(worker, served, browse, tmp_path):
    """A wrong token, no cookie and a forged one are refused everywhere; the right token opens the wall."""
    angry(worker, "upset")
    (tmp_path / "token").write_text(f"{_TOKEN}\n")
    address, _ = served("--token-file", tmp_path / "token")
    for path in ("/", "/calls/upset", "/alerts"):
        status, headers, text = answer(address + path)
        assert (status, headers["Location"], "upset" in text) == (303, "/login", False)
    for path in ("/events", "/api/calls/upset", "/api/calls/../calls/upset", "/static/../api/calls/upset"):
        assert answer(address + path)[0] in (401, 404), path
        assert answer(address + path, Cookie="callmood_session=9999999999.0")[0] in (401, 404), path
    assert answer(f"{address}/login", b"token=wrong")[1]["Location"] == "/login?wrong"
    page = browse(address)
    page.get_by_label("Token").fill(_TOKEN)
    page.get_by_role("button").click()
    expect(page.locator("table.wall")).to_contain_text("upset")
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")


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


def test_the_answers_are_those_of_the_openapi_file(worker, served):
    """Calls, one call, alerts and the pulse fit their schemas."""
    angry(worker, "upset", 6, queue="billing")
    worker.say("over", Emotion.NEUTRAL, end=True)
    address, _ = served()
    paths = {"/api/calls": "/api/calls", "/api/calls/{call_id}": "/api/calls/upset"}
    for path, asked in (paths | {name: name for name in ("/api/alerts", "/api/pulse", "/api/trends")}).items():
        status, _, text = answer(address + asked)
        assert (status, problems(path, json.loads(text))) == (200, [])
    assert [row["id"] for row in json.loads(answer(f"{address}/api/calls")[2])["ended"]] == ["over"]
    assert json.loads(answer(f"{address}/api/pulse")[2])["waiting"]["partition"] == "audio:0"


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_screen_is_accessible(worker, served, browse, scheme):
    """axe-core finds no violation, in light and in dark."""
    angry(worker, "upset", 6, queue="billing", agent="Kim")
    worker.say("calm", Emotion.HAPPINESS)
    worker.say("calm")
    worker.say("over", Emotion.SADNESS, end=True, attributes={"queue": "billing"})
    address, _ = served("--listen", "https://phone.example.com/?call={call}")
    page = browse(address, color_scheme=scheme)
    expect(page.locator("table.wall tbody tr")).to_have_count(2)
    screens = {"wall": page}
    screens["call"] = browse(f"{address}/calls/upset", color_scheme=scheme)
    expect(screens["call"].locator(".lanes rect.anger")).to_have_count(6)
    screens["alerts"] = browse(f"{address}/alerts", color_scheme=scheme)
    expect(screens["alerts"].locator("tbody tr").first).to_contain_text("open")
    screens["trends"] = browse(f"{address}/trends", color_scheme=scheme)
    expect(screens["trends"].locator(".trends .bar")).to_have_count(1)
    expect(screens["trends"].locator("tbody")).to_contain_text("billing")
    for name, screen in screens.items():
        found = Axe().run(screen)
        assert found.violations_count == 0, f"{name}: {found.generate_report()}"
