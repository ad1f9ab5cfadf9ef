"""The page for supervisors as a test starts it, a browser, and what a test asks the page."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from callmood.schemas.common import Emotion
from deploy.local.nursery import free_port


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
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - the other integration tests do without

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


def angry(worker, call_id, times=4, **attributes):
    for _ in range(times):
        worker.say(call_id, Emotion.ANGER, attributes=attributes)
