"""Take the pictures of docs/page.md again, from the demo: `python -m deploy.local run -- python -m deploy.pictures`.

Needs Chromium.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, sync_playwright

_FOLDER: Final = Path(__file__).parents[1] / "docs" / "pictures"
_ADDRESS: Final = re.compile(rb"http://127\.0\.0\.1:\d+/")
_WAIT_MS: Final = 120_000


def main() -> None:
    """Take them while the demo's calls are live."""
    command = [sys.executable, "-m", "callmood", "demo"]
    environment = os.environ | {"COLUMNS": "200"}  # the address stays on one line
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as demo, sync_playwright() as playwright:
        assert demo.stdout is not None
        address = next(found[0].decode() for line in demo.stdout if (found := _ADDRESS.search(line)))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        _take(browser, address)
        browser.close()
        demo.terminate()


def _take(browser: Browser, address: str) -> None:
    pages = {
        scheme: browser.new_page(viewport={"width": 1280, "height": 560}, color_scheme=scheme)
        for scheme in ("light", "dark")
    }
    for page in pages.values():
        page.goto(address)
    pages["light"].wait_for_selector("section.open li", timeout=_WAIT_MS)  # the first alert
    for scheme, page in pages.items():
        page.screenshot(path=_FOLDER / f"wall-{scheme}.png")
    for scheme, page in pages.items():
        page.click("section.open li a")
        page.wait_for_selector("svg", timeout=_WAIT_MS)
        page.screenshot(path=_FOLDER / f"call-{scheme}.png", full_page=True)


if __name__ == "__main__":
    main()
