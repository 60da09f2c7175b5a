"""An explanation as one HTML page that needs nothing beside itself: pictures are in it, and there is no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from trainers.explanation import Array, Explanation, Sample, gaps, mean_by_place, ranked

_SHOWN = 20  # of the global importance; of a sample's columns
_PIXELS_PX = 160  # longer side of a picture on the page
_FOR, _AGAINST = np.array([178.0, 24.0, 43.0]), np.array([33.0, 102.0, 172.0])

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .6rem .15rem 0; text-align: left; vertical-align: top; }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(23rem, 1fr)); gap: 1rem; }
.samples.wide { grid-template-columns: 1fr; }
.sample { border: 1px solid #ddd; border-radius: 6px; padding: .7rem .9rem; }
.sample.wrong { border-color: #b2182b; }
.sample h3 { font-size: 1rem; margin: 0 0 .4rem; }
figure { display: inline-block; margin: 0 .6rem 0 0; } figcaption { font-size: .8rem; color: #555; }
img { image-rendering: pixelated; border: 1px solid #eee; }
.tokens { font-family: ui-monospace, monospace; line-height: 1.9; overflow-wrap: anywhere; }
.tokens span { padding: .1rem .05rem; border-radius: 2px; }
.note { color: #555; font-size: .85rem; }
"""


def page(explanation: Explanation, about: Mapping[str, Any]) -> str:
    """The whole page. `about`: what was explained and on what, by name, as it is shown at the top."""
    wide = "" if explanation.kind == "image" else " wide"
    body = [
        f"<h1>Explanation of {escape(str(about.get('model', 'a model')))}</h1>",
        _facts({**about, **_summary(explanation)}),
        f"<p>{_reading(explanation)}</p>",
        f"<h2>Importance: mean absolute attribution by {escape(explanation.importance_of)}</h2>",
        _importance(explanation),
        f"<h2>{len(explanation.samples)} samples</h2>",
        f'<div class="samples{wide}">{"".join(_sample(explanation, each) for each in explanation.samples)}</div>',
    ]
    head = f'<meta charset="utf-8"><title>Explanation</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _summary(explanation: Explanation) -> dict[str, str]:
    right = sum(each.right for each in explanation.samples)
    found = gaps(explanation.samples)
    complete = "not promised by this method"
    if found is not None:
        complete = f"largest gap {found[0]:.2g}; all gaps together are {found[1]:.2%} of all changes"
    return {
        "method": explanation.method,
        "explained": explanation.output,
        "baseline": explanation.baseline,
        "predicted right": f"{right} of {len(explanation.samples)}",
        "completeness": complete,
    }


def _reading(explanation: Explanation) -> str:
    if explanation.kind == "text":
        return (
            "Red tokens spoke for the prediction: replaced by the baseline, they make it less likely. Blue ones spoke "
            "against it. Each token is tried alone, so what several say together may be counted twice or not at all."
        )
    return (
        "Red spoke for the predicted class, blue against it. A sample's attributions add up to its change: the output for "
        "the sample less the output for the baseline. What is missing of that is the gap."
    )


def _facts(facts: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in facts.items())
    return f"<table>{rows}</table>"


# ---- importance over all samples ------------------------------------------------------------------------------------


def _importance(explanation: Explanation) -> str:
    top = ranked(explanation.importance)[:_SHOWN]
    rows = [(_visible(name), value, f"{value:.4g}") for name, value in top]
    if explanation.kind == "image":
        mean = mean_by_place(explanation.samples)
        return _figure(_signed(mean), "all pixels") + _bars(rows[:10])
    return _bars(rows)


def _bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """One bar a row, to the right for what is above 0: name, value, and the words behind the bar."""
    most = max((abs(value) for _, value, _ in rows), default=0.0) or 1.0
    low = 150.0 if any(value < 0 for _, value, _ in rows) else 0.0
    lines = []
    for place, (name, value, words) in enumerate(rows):
        width = abs(value) / most * 150
        x = 210 + low - (width if value < 0 else 0)
        shown = escape(name if len(name) <= 30 else f"{name[:29]}…")
        lines.append(
            f'<text x="200" y="{place * 20 + 14}" text-anchor="end">{shown}</text>'
            f'<rect x="{x:.1f}" y="{place * 20 + 3}" width="{width:.1f}" height="14" fill="{_rgb(np.sign(value))}"/>'
            f'<text x="{220 + low + 150:.0f}" y="{place * 20 + 14}" fill="#555">{escape(words)}</text>'
        )
    height = len(rows) * 20 + 6
    return f'<svg width="660" height="{height}" font-size="13" role="img">{"".join(lines)}</svg>'


# ---- samples --------------------------------------------------------------------------------------------------------


def _sample(explanation: Explanation, sample: Sample) -> str:
    match explanation.kind:
        case "image":
            shown = _image(sample)
        case "table":
            shown = _row(sample, tuple(explanation.importance))
        case "text":
            shown = _tokens(sample)
    said = (
        f"predicted <b>{escape(_visible(sample.predicted))}</b> ({sample.predicted_probability:.1%}), "
        f"true <b>{escape(_visible(sample.true))}</b> ({sample.true_probability:.1%})"
    )
    sums = ""
    if sample.gap is not None and sample.change is not None:
        sums = (
            f'<p class="note">attributions add up to {sample.change + sample.gap:.4f}, '
            f"the change is {sample.change:.4f}: gap {sample.gap:.2g}</p>"
        )
    wrong = "" if sample.right else " wrong"
    return f'<div class="sample{wrong}"><h3>test sample {sample.index}</h3><p>{said}</p>{shown}{sums}</div>\n'


def _image(sample: Sample) -> str:
    assert sample.image is not None
    return _figure(_grey_or_colour(sample.image), "input") + _figure(_signed(sample.attributions), "attribution")


def _row(sample: Sample, columns: Sequence[str]) -> str:
    """The columns that counted most."""
    order = np.argsort(-np.abs(sample.attributions), kind="stable")[:_SHOWN]
    found = sample.attributions
    return _bars([(f"{columns[at]} = {sample.words[at]}", float(found[at]), f"{found[at]:+.4g}") for at in order])


def _tokens(sample: Sample) -> str:
    shown = _coloured(sample.words, sample.attributions)
    if sample.attention is not None:
        looks = _coloured(sample.words, sample.attention)
        shown += f'<p class="note">attention, the mean over layers and heads</p>{looks}'
    return shown


def _coloured(words: Sequence[str], values: Array) -> str:
    scaled = values / (np.abs(values).max() or 1.0)
    longer = any(len(each) > 1 for each in words)
    spans = [
        f'<span style="background:{_rgb(value)}" title="{exact:.4g}">{escape(_visible(word))}</span>'
        for word, value, exact in zip(words, scaled, values, strict=True)
    ]
    return f'<div class="tokens">{(" " if longer else "").join(spans)}</div>'


def _visible(word: str) -> str:
    return {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍", "": "∅"}.get(word, word)


# ---- pictures -------------------------------------------------------------------------------------------------------


def _figure(pixels: Array, caption: str) -> str:
    """`pixels` [height, width, 3] or [height, width], 0 to 255."""
    file = io.BytesIO()
    Image.fromarray(pixels.round().astype(np.uint8)).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    height, width = pixels.shape[:2]
    scale = _PIXELS_PX / max(height, width)
    size = f'width="{width * scale:.0f}" height="{height * scale:.0f}"'
    image = f'<img {size} alt="{escape(caption)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _grey_or_colour(image: Array) -> Array:
    """`image` [channels, height, width] with its own least value black and its greatest white."""
    low, high = float(image.min()), float(image.max())
    scaled: Array = (image - low) / ((high - low) or 1.0) * 255
    return scaled.transpose(1, 2, 0) if len(image) == 3 else scaled.mean(axis=0)


def _signed(values: Array) -> Array:
    """[height, width, 3]: white for 0, red above, blue below."""
    scaled = values / (np.abs(values).max() or 1.0)
    return _colours(scaled)


def _colours(scaled: Array) -> Array:
    """[..., 3] for values within -1 and 1."""
    strength = np.abs(scaled)[..., np.newaxis]
    full = np.where(scaled[..., np.newaxis] > 0, _FOR, _AGAINST)
    mixed: Array = 255 + (full - 255) * strength
    return mixed


def _rgb(value: float) -> str:
    red, green, blue = _colours(np.array(value, dtype=np.float64)).round().astype(int).tolist()
    return f"rgb({red},{green},{blue})"
