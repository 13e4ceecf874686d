"""The built pages: every link leads somewhere, every picture is described, nothing comes from elsewhere."""

import os
import pkgutil
import re
import runpy
import zipfile
from functools import cache
from importlib import import_module
from inspect import isclass, isfunction
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup

import metarobust

ROOT = Path(__file__).resolve().parents[2]
GIVEN = os.environ.get("METAROBUST_SITE")
SITE = (ROOT / (GIVEN or "_build/check/_build/html")).resolve()
PAGES = sorted(page for page in SITE.rglob("*.html") if "_static" not in page.relative_to(SITE).parts)
MADE_BY_SPHINX = {"index.html", "genindex.html", "search.html"}

if not PAGES and not GIVEN:
    pytest.skip("there are no built pages; make test builds and checks them", allow_module_level=True)


@cache
def soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


@cache
def anchors(page: Path) -> set[str]:
    return {tag.get(key) for tag in soup(page).find_all(True) for key in ("id", "name") if tag.get(key)}


printing = runpy.run_path(str(ROOT / ".ci/print.py"))
CONTENTS = printing["contents"](yaml.safe_load((ROOT / "_toc.yml").read_text()))


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(SITE)))
def page(request):
    return request.param


def test_every_page_of_the_contents_is_there_and_no_other():
    assert {str(page.relative_to(SITE)) for page in PAGES} - MADE_BY_SPHINX == {f"{name}.html" for name in CONTENTS}
    assert {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")} <= set(CONTENTS)
    index = (SITE / "searchindex.js").read_text(encoding="utf-8")
    assert [name for name in CONTENTS if f'"{name}"' not in index] == []


def test_links_lead_somewhere(page):
    dead = []
    for tag, key in (("a", "href"), ("img", "src"), ("link", "href"), ("script", "src"), ("source", "src")):
        for link in soup(page).find_all(tag, attrs={key: True}):
            url = urlsplit(link[key])
            if url.scheme or url.netloc or link[key] in ("", "#"):
                continue
            target = (page.parent / unquote(url.path)).resolve() if url.path else page
            if target.is_dir():
                target /= "index.html"
            anywhere = not url.fragment or target.suffix != ".html"
            if not target.is_file() or not (anywhere or unquote(url.fragment) in anchors(target)):
                dead.append(link[key])
    assert not dead


def test_pictures_are_described_in_words(page):
    assert not [img for img in soup(page).find_all("img") if not img.get("alt", "").strip()]
    figures = (soup(page).find("article") or soup(page)).select(".cell_output img, figure img")
    assert not [img["src"] for img in figures if len(img["alt"].split()) < 4]


def test_nothing_is_loaded_from_elsewhere(page):
    loads = [tag[key] for key in ("src", "srcset", "data", "action") for tag in soup(page).find_all(attrs={key: True})]
    links, said = soup(page).find_all("link", href=True), {"canonical", "author", "license"}
    loads += [link["href"] for link in links if not said & set(link.get("rel", []))]
    assert not [url for url in loads if re.match(r"(https?:)?//", url)]
    inline = " ".join(tag.get_text() for tag in soup(page).find_all(["script", "style"]))
    assert not re.search(r"https?://(?!www\.w3\.org/)", inline)


def test_styles_load_nothing_from_elsewhere_and_find_their_fonts():
    for path in SITE.rglob("*.css"):
        style = path.read_text(encoding="utf-8")
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", style), path.name
    urls = re.findall(r"url\([\"']?([^\"')]+)", (SITE / "_static/book.css").read_text(encoding="utf-8"))
    assert urls
    assert [url for url in urls if not (SITE / "_static" / url).is_file()] == []


def prose(page: Path) -> str:
    """The words of a page, without code and formulas."""
    main = BeautifulSoup(str(soup(page).find("article") or soup(page)), "html.parser")
    for hidden in main.find_all(["pre", "code", "script", "style", "math"]):
        hidden.decompose()
    return main.get_text()


def test_no_raw_tables_and_no_raw_tex(page):
    text = prose(page)
    assert not re.search(r"^\s*\|.*\|\s*$", text, flags=re.M)
    assert not re.search(r"\\[(\[a-zA-Z]|\$[^$\n]*[\\_^{][^$\n]*\$|\$\$", text)
    assert not soup(page).find("merror")


def test_ledger_page_shows_every_claim_with_its_verdict():
    from metarobust.book.claims import ledger

    page = soup(SITE / "book" / "ledger.html")
    for name, judged in ledger().items():
        said = page.find(id=f"claim-{name}").find_parent("tr").get_text(" ", strip=True)
        assert said.startswith(f"{judged.verdict} "), name
    assert len(page.select('span[id^="claim-"]')) == len(ledger())


def test_api_reference_has_every_public_name_of_the_core():
    described = {tag["id"] for tag in soup(SITE / "book" / "api.html").find_all("dt", id=True)}
    layers = ("lab", "book", "course", "cli", "__main__")
    wanted = set()
    for module in pkgutil.walk_packages(metarobust.__path__, "metarobust."):
        if module.ispkg or module.name.split(".")[1] in layers:
            continue
        for name, value in vars(import_module(module.name)).items():
            is_own = getattr(value, "__module__", "") == module.name and (isclass(value) or isfunction(value))
            wanted |= {f"{module.name}.{name}"} if is_own and not name.startswith("_") else set()
    assert len(wanted) > 100
    assert wanted - described == set(), "without a docstring"


def test_colab_links_open_notebooks_that_exist(page):
    links = [link["href"] for link in soup(page).find_all("a", href=re.compile(r"^https://colab\."))]
    for link in links:
        assert (ROOT / link.split("/blob/main/")[1]).is_file(), link
    if page.parent.name == "notebooks":
        assert {link.rsplit("/", 1)[1] for link in links} == {page.stem + ".ipynb"}


def test_notebook_pages_have_their_buttons(page):
    if page.parent.name != "notebooks":
        pytest.skip("not a notebook")
    header = soup(page).find(class_="bd-header-article")
    links = " ".join(link["href"] for link in header.find_all("a", href=True))
    for part in ("colab.research.google.com", "github.com", "/issues/new", f"_sources/notebooks/{page.stem}.ipynb"):
        assert part in links


def test_e_readers_get_every_page_and_no_broken_link(tmp_path):
    write_epub = runpy.run_path(str(ROOT / ".ci/epub.py"))["write_epub"]
    write_epub(printing["articles"](SITE), SITE, tmp_path / "book.epub")
    book = zipfile.ZipFile(tmp_path / "book.epub")
    assert book.namelist()[0] == "mimetype"
    assert {f"{name.replace('/', '-')}.xhtml" for name in CONTENTS} < set(book.namelist())
    assert not [name for name in book.namelist() if name.endswith("html") and b"<script" in book.read(name)]
    broken = BeautifulSoup('<article id="a"><h1>A</h1><a href="#b">to nowhere</a></article>', "html.parser").article
    with pytest.raises(ValueError, match="#b, which is not in it"):
        write_epub([("a", broken)], SITE, tmp_path / "broken.epub")


def test_slides_show_every_figure_of_a_part(tmp_path):
    runpy.run_path(str(ROOT / ".ci/slides.py"))["main"](SITE, tmp_path)
    shown = [img for deck in tmp_path.iterdir() for img in soup(deck).find_all("img")]
    figures = [soup(page).select(".cell_output img:not([style*='display:none'])") for page in PAGES]
    assert len(shown) == sum(map(len, figures)) > 40
    assert all(img["src"].startswith("data:") and img["alt"] for img in shown)


def test_the_print_version_has_every_page_and_its_links_stay_within_it():
    book = BeautifulSoup(printing["one_page"](SITE), "html.parser")
    assert [article["id"] for article in book.find_all("article")] == [name.replace("/", "-") for name in CONTENTS]
    within = {link["href"][1:] for link in book.find_all("a", href=re.compile(r"^#."))}
    assert within - {tag["id"] for tag in book.find_all(id=True)} == set()
    assert len(within) > len(CONTENTS)
