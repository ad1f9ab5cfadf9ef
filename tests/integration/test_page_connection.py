"""The page over hours: streams that are refused or end, wrong clocks, and what keyboards and screen readers get."""

import re
import time
from contextlib import closing

import pytest
from browsing import angry
from playwright.sync_api import expect
from publisher import Publisher

from callmood.schemas.common import Emotion

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def worker(redis_url, redis_prefix):
    """Publishes calls for the page."""
    with closing(Publisher(redis_url, redis_prefix)) as publishing:
        yield publishing


def test_a_stream_that_a_proxy_refuses_is_opened_again(worker, served, browse):
    """A proxy answers 502 while the page restarts; browsers do not try again after that."""
    worker.say("a", Emotion.NEUTRAL)
    address, _ = served()
    page = browse(f"{address}/alerts")
    page.route("**/events*", lambda route: route.fulfill(status=502, body="bad gateway"))
    page.goto(address)
    expect(page.locator("#trouble")).to_contain_text("No connection to the server", timeout=20_000)
    page.unroute("**/events*")
    expect(page.locator("table.wall tbody tr")).to_have_count(1, timeout=20_000)
    expect(page.locator("#problem")).not_to_contain_text("No connection")


def test_after_the_end_of_a_session_the_login_leads_back(worker, served, browse, tmp_path):
    """The page goes to the login by itself, and then shows the same call."""
    angry(worker, "upset/1")
    (tmp_path / "token").write_text("a token of some length")
    address, process = served("--token-file", tmp_path / "token")
    page = browse(f"{address}/calls/upset%2F1")
    page.get_by_label("Token").fill("a token of some length")
    page.get_by_role("button").click()
    expect(page.locator(".lanes rect.anger")).to_have_count(4)
    process.terminate()
    process.wait()
    (tmp_path / "token").write_text("another token of some length")
    served("--token-file", tmp_path / "token", port=int(address.rpartition(":")[2]))
    page.get_by_label("Token").fill("another token of some length")
    page.get_by_role("button").click()
    expect(page.locator(".lanes rect.anger")).to_have_count(4)
    assert page.url == f"{address}/calls/upset%2F1"


def test_ages_are_by_the_clock_of_the_server(own_redis, redis_prefix, served, browse):
    """A browser's clock that is ten minutes ahead changes none; while Redis is away, the reason stays."""
    start, url = own_redis
    running = start()
    with closing(Publisher(url, redis_prefix)) as worker:
        worker.say("a", Emotion.NEUTRAL)
        address, _ = served(redis_url=url)
        page = browse(f"{address}/trends")
        page.clock.install(time=time.time() + 600)
        page.goto(address)
        expect(page.locator("table.wall tbody tr")).to_have_count(1)
        running.process.kill()
        expect(page.locator("#since")).to_contain_text(re.compile(r"0:1\d old"), timeout=30_000)
        assert page.locator("#problem").text_content() == "Redis does not answer: ConnectionError."


def test_a_claim_that_does_not_reach_the_server_is_reported(worker, served, browse):
    """The supervisor can try again."""
    angry(worker, "upset", 6)
    address, process = served()
    page = browse(f"{address}/alerts")
    page.get_by_label("Your name").fill("Kim")
    expect(page.get_by_role("button", name="claim negative_run of upset")).to_be_visible()
    process.kill()
    page.get_by_role("button", name="claim negative_run of upset").click()
    expect(page.get_by_role("status")).to_have_text("Not claimed: the server does not answer. Try again.")


def test_what_has_the_focus_keeps_it(worker, served, browse):
    """The button of a queue while its counts change, and a link on the page of a call that goes on."""
    angry(worker, "upset", queue="billing")
    address, _ = served("--listen", "https://phone.example.com/?call={call}")
    page, call = browse(address), browse(f"{address}/calls/upset")
    page.get_by_role("button", name="billing").focus()
    call.get_by_role("link", name="listen").focus()
    worker.say("other", Emotion.NEUTRAL, attributes={"queue": "billing"})
    worker.say("first", Emotion.NEUTRAL, attributes={"queue": "a"})
    worker.say("upset", Emotion.ANGER)
    expect(page.get_by_role("button", name="billing 2")).to_be_focused()
    expect(call.locator(".lanes rect.anger")).to_have_count(5)
    expect(call.get_by_role("link", name="listen")).to_be_focused()


def test_screen_readers_get_new_alerts_and_no_counters(worker, served, browse):
    """A log announces what is added to it; nothing that changes every second is a live region."""
    worker.say("calm", Emotion.NEUTRAL)
    page = browse(served()[0])
    expect(page.locator("table.wall tbody tr")).to_have_count(1)
    page.evaluate("document.querySelector('[role=log]').dataset.first = 'yes'")
    angry(worker, "upset", 6)
    expect(page.locator("[role=log][data-first]")).to_contain_text("upset")
    live = page.evaluate("[...document.querySelectorAll('[role=status],[role=alert],[aria-live]')].map(one => one.id)")
    assert live == ["problem"]
    assert page.title() == "callmood: calls"


def test_the_wall_fits_a_phone_and_a_long_id(worker, served, browse):
    """Only the table scrolls sideways, and the link to listen is beside an id of 256 characters."""
    angry(worker, "x" * 256, queue="billing")
    address, _ = served("--listen", "https://phone.example.com/?call={call}")
    page = browse(address, viewport={"width": 320, "height": 640})
    expect(page.locator("table.wall tbody tr")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    page.get_by_role("link", name="listen").click(trial=True)
