"""A figure that a reader can move: drawn beforehand for a page without a kernel, or live where a kernel runs.

`slider` embeds every frame in one piece of HTML that asks nobody for anything: no script file, no identifier, no
network. Two sliders on a page cannot mix up, since each finds its own frames from where it stands, and running a
notebook again gives the same HTML. `live` draws each frame when it is asked for, with ipywidgets.
"""

import base64
import html
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image  # matplotlib depends on it

from metarobust.errors import InputError

MOST_BYTES = 300_000
COLOURS = 64  # enough for grey images, bars and smooth letters; makes a frame half as large


@dataclass(frozen=True)
class Drawing:
    """What a callback gives for one value: a figure, one line of what it shows, and its alt text."""

    figure: Figure
    says: str
    alt: str


@dataclass(frozen=True)
class Frame:
    """A drawing as a PNG of `width` pixels."""

    png: bytes = field(repr=False)
    width: int
    says: str
    alt: str

    def image(self, hidden: bool = False) -> str:
        """An <img> element with the picture inside it."""
        source = base64.b64encode(self.png).decode()
        look = f"display:{'none' if hidden else 'block'};max-width:100%;height:auto;background:#fff;border-radius:6px"
        alt, text = html.escape(self.alt), html.escape(self.says)
        return (
            f'<img src="data:image/png;base64,{source}" alt="{alt}" data-says="{text}" '
            f'width="{self.width}" style="{look}">'
        )


Draw = Callable[[float], Drawing]


def frame(draw: Draw, value: float) -> Frame:
    """Draw one value, keep the picture, and close the figure."""
    drawing = draw(value)
    buffer, small = io.BytesIO(), io.BytesIO()
    # No bbox_inches="tight": frames of one size do not make the page jump.
    drawing.figure.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(drawing.figure)
    picture = Image.open(buffer).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(small, format="png", optimize=True)
    return Frame(small.getvalue(), picture.width, drawing.says, drawing.alt)


# What runs when the slider moves: show its frame, hide the others, say in words what is shown.
SCRIPT = """
const box = this.closest('[data-slider]'), all = box.querySelectorAll('img'), now = all[+this.value];
all.forEach(one => one.style.display = one === now ? 'block' : 'none');
box.querySelector('output').textContent = now.dataset.says;
this.setAttribute('aria-valuetext', now.dataset.says);
"""


@dataclass(frozen=True)
class Slider:
    """Frames behind a labelled range input, for mouse, finger and keyboard. Jupyter shows it as HTML."""

    label: str
    frames: tuple[Frame, ...] = field(repr=False)
    start: int = 0

    def _repr_html_(self) -> str:
        shown = self.frames[self.start]
        images = "\n".join(one.image(hidden=one is not shown) for one in self.frames)
        text, label = html.escape(shown.says), html.escape(self.label)
        return (
            f'<div data-slider role="group" aria-label="{label}" style="max-width:{shown.width}px">\n{images}\n'
            f'<label style="display:block;margin-top:.5em">{label}\n'
            f'<input type="range" min="0" max="{len(self.frames) - 1}" step="1" value="{self.start}" '
            f'autocomplete="off" aria-valuetext="{text}" style="display:block;width:100%;accent-color:#0072B2" '
            f'oninput="{html.escape(SCRIPT.strip())}"></label>\n'
            f"<output>{text}</output>\n</div>"
        )


def slider(draw: Draw, values: Sequence[float], label: str, start: int = 0) -> Slider:
    """All frames, drawn now. start: the index of the one shown first, which is all that shows without scripts.

    Raises InputError without values, for a start that is not one of them, and for frames too heavy for a page.
    """
    if not len(values) or not 0 <= start < len(values):
        raise InputError(f"a slider of {len(values)} values that starts at number {start}: give 0 to the last one")
    made = Slider(label, tuple(frame(draw, float(value)) for value in values), start)
    size = len(made._repr_html_())
    if size > MOST_BYTES:
        raise InputError(f"a slider of {size} bytes, over {MOST_BYTES}: draw fewer or smaller frames")
    return made


def live(draw: Draw, low: float, high: float, step: float, label: str):
    """An ipywidgets box that draws each value as it is chosen: for Jupyter and Colab, where a kernel runs."""
    try:
        import ipywidgets
    except ImportError as error:
        raise InputError("a live slider needs ipywidgets: install it, or use `slider`") from error
    picture = ipywidgets.HTML()
    words = ipywidgets.Label()
    choose = ipywidgets.FloatSlider(
        value=low, min=low, max=high, step=step, description=label, continuous_update=False, readout_format=".3f"
    )

    def redraw(_=None) -> None:
        now = frame(draw, choose.value)
        picture.value, words.value = now.image(), now.says

    choose.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([choose, picture, words])
