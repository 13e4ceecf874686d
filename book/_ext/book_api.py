"""The API reference, out of docstrings in Google style, by autodoc and napoleon. A line of a page

    % api metarobust.attacks

becomes a section for each module of the package, or, of `metarobust` itself, for each module that lies in no package.
"""

import re
from importlib import import_module
from pathlib import Path

import metarobust

LINE = re.compile(r"^% api (\S+)$", flags=re.MULTILINE)
ABOVE = {"metarobust.cli", "metarobust.__main__"}
SECTION = """### {name}

```{{eval-rst}}
.. automodule:: {name}
   :members:
   :ignore-module-all:
```
"""


def modules(package: str) -> list[str]:
    """The full names of the modules in a package, subpackages left out."""
    folder = Path(import_module(package).__path__[0])
    names = [f"{package}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
    return [name for name in names if name not in ABOVE]


def fill_in(app, docname: str, source: list[str]) -> None:
    """Replace the lines of a page, and have it read again where the library changed."""
    if LINE.search(source[0]):
        for path in Path(metarobust.__file__).parent.rglob("*.py"):
            app.env.note_dependency(str(path))
    source[0] = LINE.sub(lambda line: "\n".join(SECTION.format(name=name) for name in modules(line[1])), source[0])


def keep_blocks(app, what: str, name: str, found: object, options: object, lines: list[str]) -> None:
    """Indented lines under a sentence are equations and code here, and stay as they are; for docutils, an error."""
    kept: list[str] = []
    for line in lines:
        above = kept[-1] if kept else ""
        text = next((old for old in reversed(kept) if old.strip()), "")
        if line.startswith("    ") and text[:1] not in ("", " ", ":", ".", "-", "*") and not text.endswith("::"):
            kept += [*([""] if above else []), "::", ""]
        elif line.strip() and not line.startswith(" ") and above.startswith("    "):
            kept.append("")
        kept.append(line)
    lines[:] = kept


def setup(app) -> dict:
    app.connect("source-read", fill_in)
    app.connect("autodoc-process-docstring", keep_blocks, priority=900)  # after napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
