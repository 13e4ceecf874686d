"""The built book as one page, for e-readers, and as a PDF where Chromium is there to print it: print.py SITE OUT."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml
from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HEAD = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Learning from Mistakes</title>
<link rel="stylesheet" href="_static/pygments.css"><link rel="stylesheet" href="_static/book.css"><style>
body { max-width: 46rem; margin: auto; padding: 1rem; font: 11pt/1.5 Georgia, serif; color: #000; background: #fff; }
article + article { break-before: page; }
img { max-width: 100%; height: auto; } figure, pre, table, [data-slider] { break-inside: avoid; }
pre { font-size: 8.5pt; white-space: pre-wrap; border-left: 3px solid #ccc; padding-left: .6em; }
table { border-collapse: collapse; font-size: 9pt; } td, th { border: 1px solid #ccc; padding: .2em .5em; }
a { color: inherit; } .headerlink, .copybtn, .toggle-button, input[type=range] { display: none; }
</style></head><body>
"""


def contents(node: object) -> list[str]:
    """The files of the table of contents, in order."""
    if isinstance(node, list):
        return [name for one in node for name in contents(one)]
    if isinstance(node, dict):
        own = [node[key] for key in ("root", "file") if key in node]
        return own + [name for one in node.values() for name in contents(one)]
    return []


def articles(site: Path) -> Iterator[tuple[str, Tag]]:
    """The name and the article of each page. Links between pages become links to names: #NAME or #NAME--ANCHOR."""
    names = contents(yaml.safe_load((ROOT / "_toc.yml").read_text()))
    for name in names:
        page = site / f"{name}.html"
        article = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").find("article")
        own = name.replace("/", "-")
        for tag in article.find_all(id=True):
            tag["id"] = f"{own}--{tag['id']}"
        for tag in article.find_all(lambda tag: tag.has_attr("src") or tag.has_attr("href")):
            for key in {"src", "href"} & set(tag.attrs):
                tag[key] = moved(tag[key], page, site, names)
        for block in article.find_all("details"):
            block["open"] = ""  # paper cannot be clicked on
        article["id"] = own
        yield own, article


def one_page(site: Path) -> str:
    """The articles of all pages, one after the other."""
    return "\n".join([HEAD, *(str(article) for _, article in articles(site)), "</body></html>"])


def moved(url: str, page: Path, site: Path, names: list[str]) -> str:
    """A link as seen from the one page, which lies at the site's root."""
    if url.startswith(("http:", "https:", "data:", "mailto:")):
        return url
    path, _, anchor = url.partition("#")
    target = (page.parent / path).resolve() if path else page.resolve()
    if not target.is_relative_to(site.resolve()):
        return url
    there = target.relative_to(site.resolve()).as_posix()
    if there.removesuffix(".html") in names:
        own = there.removesuffix(".html").replace("/", "-")
        return f"#{own}--{anchor}" if anchor else f"#{own}"
    return there


def main(site: Path, out: Path) -> int:
    page = site / "print.html"
    page.write_text(one_page(site), encoding="utf-8")
    print("One page:", page.resolve().as_uri())
    from epub import write_epub

    book = out.with_suffix(".epub")
    write_epub(articles(site), site, book)
    print("For e-readers:", book.resolve())
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print("There is no Chromium here, so no PDF: open the page in a browser and print it.")
        return 0
    with tempfile.TemporaryDirectory() as profile:
        quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        command = [browser, *quiet, f"--user-data-dir={profile}", "--no-pdf-header-footer", f"--print-to-pdf={out}"]
        subprocess.run([*command, page.resolve().as_uri()], check=True, capture_output=True, timeout=300)
    print("For paper:", out.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
