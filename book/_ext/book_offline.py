"""Nothing on a page may ask another server for anything, and nothing may be there twice."""

COLAB_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"


def drop_thebe(app) -> None:
    """Jupyter Book always loads sphinx-thebe, which puts scripts on each page for a service not used here."""
    for listeners in app.events.listeners.values():
        listeners[:] = [one for one in listeners if not one.handler.__module__.startswith("sphinx_thebe")]


def tidy_assets(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Drop thebe's style, and scripts that extensions added to the page more than once."""
    context["css_files"] = [file for file in context["css_files"] if "thebe" not in str(file.filename)]
    once = {file.attributes.get("body") or file.filename: file for file in context["script_files"]}
    context["script_files"] = list(once.values())


def keep_badge_here(app, docname: str, source: list[str]) -> None:
    """Notebooks show Colab's own badge, which works everywhere; the book shows its copy of one."""
    source[0] = source[0].replace(COLAB_BADGE, "/book/_static/colab-badge.svg")


def setup(app) -> dict:
    drop_thebe(app)
    app.connect("source-read", keep_badge_here)
    app.connect("html-page-context", tidy_assets, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
