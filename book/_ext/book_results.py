"""Numbers and tables out of the recorded results: {result}`RUN PART NETWORK METHOD clean|robust|spread` and

    ```{recorded} RUN PART
    ```

and, out of the recorded comparisons with other libraries,

    ```{bench} NAME
    ```

A name that is not in the results is a warning, and so ends the build.
"""

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective, SphinxRole

from metarobust.errors import InputError, choose
from metarobust.lab.bench import BENCHES
from metarobust.lab.compare import acc, spread
from metarobust.lab.experiments import EXPERIMENTS
from metarobust.lab.results import recorded
from metarobust.lab.summary import setting


class Result(SphinxRole):
    def run(self) -> tuple[list, list]:
        name, part, model, *method, asked = self.text.split()
        try:
            number = {"clean": acc, "robust": acc, "spread": spread}[
                choose(asked, ("clean", "robust", "spread"), "number")
            ]
            value = number(name, " ".join(method), "clean" if asked == "clean" else "robust", part=part, model=model)
            return [nodes.Text(f"{value.item():.1f}\u00a0%")], []
        except InputError as error:
            return [], [self.inliner.reporter.warning(str(error), line=self.lineno)]


class Recorded(SphinxDirective):
    required_arguments = 2
    has_content = False

    def run(self) -> list:
        name, part = self.arguments
        try:
            manifest, frame = recorded(name)
            done = f"Recorded on {manifest['device']['name']}"
            markdown = EXPERIMENTS[manifest["spec"]["experiment"]].markdown
            text = [*markdown(frame, part).splitlines(), "", f"{setting(frame, part)}. {done}."]
        except InputError as error:
            return [self.state.document.reporter.warning(f"{name} {part}: {error}", line=self.lineno)]
        return [_box(self, text, name)]


class Bench(SphinxDirective):
    required_arguments = 1
    has_content = False

    def run(self) -> list:
        name = self.arguments[0]
        try:
            bench = BENCHES[choose(name, BENCHES, "comparison")]
            text = bench.markdown(*bench.recorded())
        except InputError as error:
            return [self.state.document.reporter.warning(str(error), line=self.lineno)]
        return [_box(self, text.splitlines(), name)]


def _box(directive: SphinxDirective, text: list[str], source: str) -> nodes.container:
    """Lines of Markdown as part of the page."""
    box = nodes.container(classes=["recorded"])
    directive.state.nested_parse(StringList(text, source=source), directive.content_offset, box)
    return box


def setup(app) -> dict:
    app.add_role("result", Result())
    app.add_directive("recorded", Recorded)
    app.add_directive("bench", Bench)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
