"""A deck of slides for each part of the book, out of its built pages: slides.py SITE FOLDER.

Of each chapter: what one will do, every figure with the sentence that begins to read it, and the summary. A deck is one
file that needs nothing else; space turns its pages, and it prints.
"""

import base64
import re
import sys
from html import escape
from pathlib import Path

import yaml
from bs4 import BeautifulSoup, Tag

HEAD = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
html {{ scroll-snap-type: y mandatory; font: 3vh/1.35 system-ui, sans-serif; color: #111; background: #fff; }}
body {{ margin: 0; }} h1, h2 {{ margin: 0 0 3vh; line-height: 1.15; }} li {{ margin-bottom: 1.5vh; }}
section {{ min-height: 100vh; box-sizing: border-box; padding: 5vh 8vw; scroll-snap-align: start; break-after: page;
  display: flex; flex-direction: column; justify-content: center; }}
img {{ max-width: 100%; height: 54vh; object-fit: contain; object-position: left; }} p {{ max-width: 60em; }}
@page {{ size: 320mm 180mm; margin: 0; }}
</style></head><body>
"""


def slides(article: Tag, folder: Path) -> list[str]:
    """The slides of a chapter as HTML. folder: that of the page, from which its links go."""
    for tag in article.select(".headerlink, math[display=block]"):
        tag.decompose()
    opening = next(p for p in article.find_all("p") if p.get_text().startswith(("What you will do", "The message")))
    made = [f"<h1>{article.h1.decode_contents()}</h1>{opening}"]
    for image in article.select(".cell_output img:not([style*='display:none'])"):
        reads = image.find_next(lambda tag: tag.name == "p" and not tag.get("class"))
        sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z])", reads.get_text().strip())
        says = " ".join(sentences[: 1 if len(sentences[0]) > 50 else 2])
        if not image["src"].startswith("data:"):
            content = base64.b64encode((folder / image["src"]).read_bytes())
            image["src"] = f"data:image/png;base64,{content.decode()}"
        image.attrs = {key: image[key] for key in ("src", "alt")}
        made.append(f"<h2>{image.find_previous(['h1', 'h2', 'h3']).decode_contents()}</h2>{image}<p>{escape(says)}</p>")
    return [*made, f"<h2>Summary</h2>{article.find('section', id='summary').ul}"]


def main(site: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    parts = yaml.safe_load((Path(__file__).parents[1] / "_toc.yml").read_text())["parts"]
    for part in (one for one in parts if one.get("numbered")):
        shown = [HEAD.format(title=part["caption"]), f"<section><h1>{part['caption']}</h1></section>"]
        for chapter in part["chapters"]:
            page = site / f"{chapter['file']}.html"
            article = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").find("article")
            shown += [f"<section>{one}</section>" for one in slides(article, page.parent)]
        out = folder / (re.sub(r"\W+", "-", part["caption"].lower()) + ".html")
        out.write_text("\n".join([*shown, "</body></html>"]), encoding="utf-8")
        print("Slides:", out.resolve().as_uri())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
