"""What a function or class of the library says of itself: its signature and its docstring, as

    ```{api} metarobust.attacks.pgd
    ```

Docstrings here are prose. Where one explains arguments, as in `eps: radius in pixel units. steps: of PGD.`, each
becomes an item of a list. Lines that are indented are code. A name that the library does not have is a warning, and so
ends the build.
"""

import inspect
import re
from collections.abc import Callable
from importlib import import_module

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

FULL = 120 - 4  # columns of a docstring's line, less the indent
CODE = "    "


class Api(SphinxDirective):
    required_arguments = 1
    has_content = False

    def run(self) -> list:
        module, _, name = self.arguments[0].rpartition(".")
        try:
            found = getattr(import_module(module), name)
        except (AttributeError, ImportError, ValueError) as error:
            return [self.state.document.reporter.warning(f"{self.arguments[0]}: {error}", line=self.lineno)]
        self.env.note_dependency(inspect.getsourcefile(found))
        box = nodes.container(classes=["api"])
        text = StringList(markdown(found, module).splitlines(), source=self.arguments[0])
        self.state.nested_parse(text, self.content_offset, box)
        return box.children


def markdown(found: Callable, module: str) -> str:
    """The directive of Sphinx that describes a function or a class, with the docstring as its text."""
    given = inspect.signature(found).parameters
    kind, names = "function", list(given)
    signature = str(inspect.Signature([one.replace(annotation=one.empty) for one in given.values()]))
    if inspect.isclass(found):  # too many fields for a signature; the docstring names those that need a word
        kind, signature = "class", ""
    head = [f"```{{py:{kind}}} {found.__name__}{signature}", f":module: {module}", ""]
    return "\n".join([*head, *body(found.__doc__, names), "```"])


def body(docstring: str, names: list[str]) -> list[str]:
    """Paragraphs of the docstring, and lists where it explains arguments."""
    lines: list[str] = []
    for paragraph in paragraphs(docstring):
        if paragraph.startswith(CODE):
            lines += ["", *paragraph.splitlines(), ""]
            continue
        before, explained = arguments(paragraph, names)
        if before:
            lines += ["", before, ""]
        lines += [f"- {name}: {says}" for name, says in explained]
    return lines


def paragraphs(docstring: str) -> list[str]:
    """Lines that were only filled are joined. A sentence that ends where the next word would have fitted ends more."""
    lines = inspect.cleandoc(docstring).splitlines()
    found, last, room = [lines[0]], lines[0], FULL - len('"""')
    for line in lines[1:]:
        word = line.partition(" ")[0]
        broken = last.endswith(".") and len(last) + 1 + len(word) <= room
        if line.startswith(CODE) and last.startswith(CODE):
            found[-1] += "\n" + line
        elif not last or broken or line.startswith("Raises "):
            found.append(line)
        else:
            found[-1] += " " + line
        last, room = line, FULL
    return [paragraph.rstrip() for paragraph in found if paragraph.strip()]


def arguments(paragraph: str, names: list[str]) -> tuple[str, list[tuple[str, str]]]:
    """What comes before the first argument, and each argument, or several with one explanation, with what is said."""
    one = "|".join(names)
    marks = list(re.finditer(rf"(?:^|(?<=[.;] ))((?:{one})(?:, (?:{one}))*): ", paragraph))
    if not marks:
        return paragraph, []
    ends = [mark.start() for mark in marks[1:]] + [len(paragraph)]
    explained = [
        (", ".join(f"`{name}`" for name in mark[1].split(", ")), paragraph[mark.end() : end].strip())
        for mark, end in zip(marks, ends, strict=True)
    ]
    return paragraph[: marks[0].start()].strip(), explained


def setup(app) -> dict:
    app.add_directive("api", Api)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
