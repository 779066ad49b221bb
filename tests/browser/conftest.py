"""A headless Chromium in front of a home's Prefect UI."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

# The machine's own; another one by SO8T_BROWSER.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WAIT_MS = 60_000
FIRST_PIXEL = """one => one.decode().then(() => {
  const drawn = document.createElement("canvas").getContext("2d");
  drawn.drawImage(one, 0, 0);
  return [...drawn.getImageData(0, 0, 1, 1).data].slice(0, 3);
})"""
ROOT_USER = hasattr(os, "getuid") and os.getuid() == 0


class Site:
    """The UI of the server that serves a home, and its API."""

    def __init__(self, home: Path, page: Any) -> None:
        self.page = page
        self.url = (
            f"http://127.0.0.1:{json.loads((home / 'prefect' / 'server.json').read_text(encoding='utf-8'))['port']}"
        )
        self.auth = (home / "prefect" / "auth").read_text(encoding="utf-8")
        # Where each request to another machine went that the browser did not refuse by itself.
        self.left: list[str] = []
        page.on("requestfailed", self._judge)
        page.on("requestfinished", self._judge)

    def _judge(self, request: Any) -> None:
        address = urlsplit(request.url)
        if address.scheme.startswith("http") and address.hostname != "127.0.0.1" and request.failure != "csp":
            self.left.append(f"{address.hostname}: {request.failure}")

    def log_in(self) -> None:
        """With the home's user and password, at the door that the address of `so8t run` leads to."""
        self.page.goto(self.url)
        self.page.get_by_role("button", name="Login").wait_for(timeout=WAIT_MS)
        self.page.locator("input[type=password]").fill(self.auth)
        self.page.keyboard.press("Enter")
        self.page.get_by_text("Dashboard").first.wait_for(timeout=WAIT_MS)

    def ask(self, path: str, **body: Any) -> Any:
        """POST to the API."""
        user, _, password = self.auth.partition(":")
        with httpx.Client(base_url=f"{self.url}/api", auth=(user, password), trust_env=False) as client:
            token = client.get("/csrf-token", params={"client": "test"}).json()["token"]
            headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "test"}
            return client.post(path, json=body, headers=headers).raise_for_status().json()

    def artifact(self, key: str) -> str:
        """Id of the newest artifact with this key; empty without one."""
        found = self.ask("/artifacts/filter", artifacts={"key": {"any_": [key]}}, sort="UPDATED_DESC")
        return found[0]["id"] if found else ""

    def open(self, path: str, *texts: str) -> str:
        """Go to a page of the UI's second version, wait until it shows the texts; what it shows in all."""
        self.page.goto(f"{self.url}/v2{path}")
        for text in texts:
            self.page.get_by_text(text).first.wait_for(timeout=WAIT_MS)
        return self.page.locator("body").inner_text()

    def drawn(self, text: str) -> str:
        """What the page shows in all, at one moment; empty while it does not show the text."""
        shown = self.page.locator("body").inner_text()
        return shown if text in shown else ""

    def picture(self, name: str) -> tuple[int, int]:
        """Width and height in pixels of a picture that the browser could decode."""
        picture = self.page.get_by_alt_text(re.compile(f"^{re.escape(name)}"))
        picture.first.wait_for(timeout=WAIT_MS)
        return tuple(picture.first.evaluate("one => one.decode().then(() => [one.naturalWidth, one.naturalHeight])"))

    def picture_source(self, name: str) -> str:
        """The picture itself, as the page holds it; empty while it holds none."""
        found = self.page.get_by_alt_text(re.compile(f"^{re.escape(name)}"))
        return str(found.first.get_attribute("src")) if found.count() else ""

    def colour(self, name: str) -> list[int]:
        """Red, green and blue of a picture's first pixel."""
        picture = self.page.get_by_alt_text(re.compile(f"^{re.escape(name)}")).first
        return list(picture.evaluate(FIRST_PIXEL))

    def shot(self, name: str) -> None:
        """Keep what the page looks like in the folder SO8T_SHOTS, if there is one: a person should see it too."""
        if folder := os.environ.get("SO8T_SHOTS"):
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Skips where playwright or a browser is absent."""
    api = pytest.importorskip("playwright.sync_api", reason='pip install -c constraints.txt -e ".[browser]"')
    found = os.environ.get("SO8T_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the path, and SO8T_BROWSER names none")
    with api.sync_playwright() as driver:
        # As root Chromium has no sandbox; it sees this machine's own pages only.
        chromium = driver.chromium.launch(executable_path=found, args=["--no-sandbox"] if ROOT_USER else [])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser) -> Iterator[Any]:
    """A window of its own: nobody has logged in."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    yield context.new_page()
    context.close()
