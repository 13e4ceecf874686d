"""The built pages in a real browser: quiet, complete, no wider than a phone, and usable by keyboard.

Chromium is the machine's own, driven by Playwright. Where there is none, this part is skipped and says so.
"""

from __future__ import annotations

import functools
import os
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = (ROOT / os.environ.get("METAROBUST_SITE", "_build/check/_build/html")).resolve()
PAGES = sorted(
    str(page.relative_to(SITE))
    for page in SITE.rglob("*.html")
    if page.relative_to(SITE).parts[0] in ("book", "notebooks")
)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
MOST_BYTES = 4_000_000  # before a web host packs it

pytestmark = pytest.mark.timeout(120)
if not PAGES:
    pytest.skip("there are no built pages; make test builds and checks them", allow_module_level=True)
if BROWSER is None:
    pytest.skip("no Chromium on this machine: the pages were not tried in a browser", allow_module_level=True)


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    """Where the pages are served while the tests run."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        one = started.chromium.launch(executable_path=BROWSER, args=QUIET)
        yield one
        one.close()


@pytest.fixture
def visit(browser, address):
    """Opens a page at a width, and keeps what it complained about, asked for, and weighs."""
    contexts = []

    def open_page(name, width=1280, **how):
        context = browser.new_context(viewport={"width": width, "height": 900}, **how)
        contexts.append(context)
        page = context.new_page()
        page.heard, page.asked, page.weighs = [], [], []
        page.on("console", lambda said: page.heard.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        page.on("requestfailed", lambda asked: page.heard.append(f"failed: {asked.url}"))
        page.on("request", lambda asked: page.asked.append(asked.url))
        page.on("response", lambda found: page.weighs.append(int(found.headers.get("content-length", 0))))
        page.goto(f"{address}/{name}", wait_until="load")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_quiet_complete_light_and_readable_on_a_dark_phone(visit, address, name):
    """Contrast of text is at least 4.5, as WCAG 2.1 AA asks."""
    page = visit(name, width=390, color_scheme="dark")
    assert page.heard == []
    assert [url for url in page.asked if not url.startswith((address, "data:", "blob:"))] == []
    assert sum(page.weighs) < MOST_BYTES
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "a phone must scroll sideways"
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    contrast = page.evaluate(CONTRAST)
    assert contrast["count"] > 0
    assert contrast["least"] >= 4.5, contrast
    page.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
    page.wait_for_function("[...document.images].every(image => image.complete)")
    # A picture that a slider has not shown yet, or that only the light page shows, has no place, but it has a size.
    assert page.evaluate("[...document.images].filter(image => !image.naturalWidth).map(image => image.src)") == []


CONTRAST = """() => {
  const numbers = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = node => {
    for (let at = node; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const words = [...document.querySelectorAll('article p, article li, article td, article th')]
    .filter(node => node.offsetParent && node.textContent.trim());
  const all = words.map(node => {
    const [a, b] = [light(numbers(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), node.textContent.trim().slice(0, 60)];
  });
  all.sort((x, y) => x[0] - y[0]);
  return { count: all.length, least: all[0][0], text: all[0][1] };
}"""


@pytest.mark.parametrize("name", [name for name in PAGES if "data-slider" in (SITE / name).read_text("utf-8")])
def test_sliders_follow_the_keyboard(visit, name):
    page = visit(name)
    for box in page.locator("[data-slider]").all():
        knob, shown = box.locator("input"), "images => images.findIndex(image => image.offsetParent)"
        images = box.locator("img")
        at, said = images.evaluate_all(shown), box.locator("output").inner_text()
        knob.focus()
        last = at == images.count() - 1
        page.keyboard.press("ArrowLeft" if last else "ArrowRight")
        assert images.evaluate_all(shown) == at + (-1 if last else 1)
        assert box.locator("output").inner_text() != said
        assert knob.get_attribute("aria-valuetext") == box.locator("output").inner_text()


@pytest.mark.parametrize("name", [name for name in PAGES if "data-matrix" in (SITE / name).read_text("utf-8")])
def test_matrices_follow_the_arrow_keys(visit, name):
    page = visit(name)
    for box in page.locator("[data-matrix]").all():
        lines = [row.locator("button").all() for row in box.locator("tr").all()[1:]]
        assert len(lines) > 1
        assert len(lines[0]) > 1
        box.locator("button[tabindex='0']").focus()
        # Right, down, left and up again: round a square, each time with the words of the cell that is marked.
        for key, (row, column) in {"Right": (0, 1), "Down": (1, 1), "Left": (1, 0), "Up": (0, 0)}.items():
            page.keyboard.press(f"Arrow{key}")
            here = lines[row][column]
            assert here.evaluate("button => button === document.activeElement")
            assert here.get_attribute("aria-pressed") == "true"
            assert box.locator("[aria-pressed='true']").count() == box.locator("button[tabindex='0']").count() == 1
            assert box.locator("output").inner_text() == here.get_attribute("data-words")
        page.keyboard.press("ArrowUp")  # out of the table: it stays where it is
        assert lines[0][0].get_attribute("aria-pressed") == "true"


def test_a_term_is_found_by_search(visit):
    page = visit("search.html?q=robust+accuracy")
    # Results come one by one.
    page.wait_for_selector("#search-results a[href*='evaluation.html']")
    assert page.heard == []


def test_the_landing_page_leads_to_the_first_chapter(visit):
    page = visit("index.html")
    page.wait_for_url("**/book/intro.html")
    page.locator("article a[href$='notebooks/fooling-a-classifier.html']").first.click()
    page.wait_for_url("**/notebooks/fooling-a-classifier.html")
    assert page.locator("h1").first.inner_text().startswith("Fool a classifier")
