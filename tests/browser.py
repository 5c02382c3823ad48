"""A real browser that looks at the page of a running pipeline, for tests and for the pictures of the documentation."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = Path("/usr/bin/chromium")
_SWITCHES = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync")
TOKEN = "the-token-of-a-test-0123456789"
LIMIT_MS = 90_000  #: a limit and not an expectation: the page comes when a core is idle


def missing() -> str:
    """Why there is no browser here; "" if there is one."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "the package playwright is not installed (extra test)"
    return "" if CHROMIUM.exists() else f"there is no {CHROMIUM}"


@contextmanager
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(_SWITCHES))
        try:
            yield browser
        finally:
            browser.close()


def opened(browser: Any, port: int, token: str = "", scheme: str = "light", size: tuple[int, int] = (1280, 900)) -> Any:
    """A page of a context of its own; `said` on it collects what its console and its scripts complain of."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(LIMIT_MS)
    page.said = []
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("console", lambda message: page.said.append(message.text) if message.type == "error" else None)
    page.goto(f"http://127.0.0.1:{port}/{f'#token={token}' if token else ''}")
    return page


def until(page: Any, script: str, argument: Any = None) -> Any:
    """The first true value of a script in the page. Asked for from here: playwright's own waiting evaluates text in the
    page, which the page's policy forbids."""
    end = time.monotonic() + LIMIT_MS / 1000
    while not (value := page.evaluate(script, argument)):
        assert time.monotonic() < end, f"it did not come true within {LIMIT_MS / 1000:.0f} s: {script}"
        page.wait_for_timeout(100)
    return value


def live(page: Any) -> None:
    until(page, "document.body.dataset.link === 'live'")
