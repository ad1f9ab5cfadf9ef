"""The page for supervisors: a real browser, the real server, and results in a real Redis."""

import json
import re
import signal
import time
from contextlib import closing
from pathlib import Path

import jsonschema
import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from browsing import angry, answer
from playwright.sync_api import expect
from publisher import Publisher
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from callmood import schemas
from callmood.schemas.common import Emotion
from callmood.schemas.keys import Keys

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def worker(redis_url, redis_prefix):
    """Publishes calls for the page."""
    with closing(Publisher(redis_url, redis_prefix)) as publishing:
        yield publishing


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
