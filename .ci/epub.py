"""An EPUB 3 of articles: a page of XHTML for each, their pictures, and a table of contents; no script in it."""

import base64
import datetime
import uuid
import zipfile
from collections.abc import Iterable
from html import escape
from pathlib import Path
from xml.etree import ElementTree

from bs4 import Tag

TITLE = "Learning from Mistakes"
CONTAINER = """<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
STYLE = """body { line-height: 1.4; } img { max-width: 100%; } pre { white-space: pre-wrap; font-size: 0.8em; }
table { border-collapse: collapse; font-size: 0.85em; } td, th { border: 1px solid #999; padding: 0.2em 0.4em; }"""
PAGE = """<?xml version="1.0" encoding="utf-8"?>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" lang="en" xml:lang="en">
<head><title>{title}</title><link rel="stylesheet" href="style.css"/></head><body>{body}</body></html>"""
PACKAGE = """<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id" xml:lang="en">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">urn:uuid:{id}</dc:identifier>
<dc:title>{title}</dc:title><dc:language>en</dc:language><dc:creator>The metarobust authors</dc:creator>
<meta property="dcterms:modified">{now}</meta></metadata>
<manifest><item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="style" href="style.css" media-type="text/css"/>
{items}</manifest><spine>{spine}</spine></package>"""
KINDS = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}
MATHML = "http://www.w3.org/1998/Math/MathML"


def still(article: Tag) -> None:
    """Drop what moves or asks to be clicked: scripts, sliders, buttons, all frames but the first, and icons."""
    for tag in article.select("script, style, input, svg, .headerlink, .expanded, img[style*='display:none']"):
        tag.decompose()
    for tag in article.find_all(["button", "label", "output"]):
        tag.name, tag.attrs = "span", {}
    for tag in article.find_all(True):
        tag.attrs = {k: v for k, v in tag.attrs.items() if not k.startswith(("on", "data-"))}
    for tag in article.find_all("math"):
        tag["xmlns"] = MATHML


def pictures(article: Tag, own: str, site: Path) -> dict[str, bytes]:
    """Path in the book to bytes of each picture; the article's links point there afterwards."""
    found = {}
    for number, tag in enumerate(article.find_all("img")):
        if tag["src"].startswith("data:"):
            path, content = f"images/{own}-{number}.png", base64.b64decode(tag["src"].partition(",")[2])
        else:
            path, content = "images/" + Path(tag["src"]).name, (site / tag["src"]).read_bytes()
        found[path], tag["src"] = content, path
    return found


def check(book: zipfile.ZipFile) -> None:
    """Raises ValueError where a page is no XML, or a link or a picture leads nowhere within the book."""
    anchors, links = {name: set() for name in book.namelist()}, []
    for name in anchors:
        if name.endswith(".xhtml"):
            for tag in ElementTree.fromstring(book.read(name)).iter():
                anchors[name].add(tag.get("id"))
                links += [(name, tag.get(key)) for key in ("href", "src") if ":" not in tag.get(key, ":")]
    for name, link in links:
        path, _, anchor = link.partition("#")
        if path not in anchors or (anchor and anchor not in anchors[path]):
            raise ValueError(f"{name} of the EPUB links to {link}, which is not in it")


def write_epub(articles: Iterable[tuple[str, Tag]], site: Path, out: Path) -> None:
    """Write articles, whose links to each other are #NAME or #NAME--ANCHOR, as one book. Raises as `check` does."""
    pages, files, entries = {}, {}, []
    for own, article in articles:
        still(article)
        files |= pictures(article, own, site)
        for link in article.find_all("a", href=True):
            if link["href"].startswith("#"):
                link["href"] = f"{link['href'][1:].partition('--')[0]}.xhtml{link['href']}"
            elif ":" not in link["href"]:
                del link["href"]  # a file that lies beside the pages
        title = escape(article.h1.get_text().strip())
        pages[f"{own}.xhtml"] = PAGE.format(title=title, body=article.decode(formatter="minimal"))
        entries.append(f'<li><a href="{own}.xhtml">{title}</a></li>')
    nav = f'<nav epub:type="toc"><h1>Contents</h1><ol>{"".join(entries)}</ol></nav>'
    items = [f'<item id="p{i}" href="{name}" media-type="application/xhtml+xml"{_maths(text)}/>\n'
             for i, (name, text) in enumerate(pages.items())]  # fmt: skip
    items += [
        f'<item id="f{i}" href="{name}" media-type="{KINDS[Path(name).suffix]}"/>\n' for i, name in enumerate(files)
    ]
    facts = {
        "id": uuid.uuid5(uuid.NAMESPACE_URL, TITLE),
        "now": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    spine = "".join(f'<itemref idref="p{i}"/>' for i in range(len(pages)))
    texts = {"META-INF/container.xml": CONTAINER, "style.css": STYLE, "nav.xhtml": PAGE.format(title=TITLE, body=nav)}
    texts["book.opf"] = PACKAGE.format(title=TITLE, items="".join(items), spine=spine, **facts)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr(zipfile.ZipInfo("mimetype"), "application/epub+zip")  # first, and not packed
        for name, content in (texts | pages | files).items():
            book.writestr(name, content)
    with zipfile.ZipFile(out) as book:
        check(book)


def _maths(text: str) -> str:
    return ' properties="mathml"' if "<math" in text else ""
