"""The exploratory report: one HTML page that needs nothing else, with pictures as inline SVG."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape
from PIL import Image

from trainers.config import Data
from trainers.data.preparing.fitting import Statistics, numbers
from trainers.data.preparing.profile import known_values, quantiles
from trainers.data.preparing.transform import Fitted

_BINS = 30
_EXAMPLES = 12
_LOOKED_AT = 2000  # images at most, of which distributions are drawn
_CORRELATED = 30  # columns at most in the picture
_BARS = 20

Images = npt.NDArray[np.float32]

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ source }}</title>
<style>
body { font: 14px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430 }
h1 { font-size: 1.4rem; overflow-wrap: anywhere } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #dde2e8 }
td:first-child, th:first-child { text-align: left } .warn { color: #a8320a }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem }
.card { border: 1px solid #dde2e8; border-radius: 6px; padding: .6rem .8rem } .card b { overflow-wrap: anywhere }
svg { display: block } rect.bar { fill: #3a6ea5 } text { font-size: 10px; fill: #51606f } img { image-rendering: pixelated }
</style>
<h1>{{ source }}</h1>
<h2>Rows</h2>
<table><tr><th>part</th><th>rows</th></tr>
{% for name, count in rows.items() %}<tr><td>{{ name }}</td><td>{{ "{:,}".format(count) }}</td></tr>{% endfor %}
{% for name, count in dropped.items() %}<tr><td>dropped: {{ name }}</td><td>{{ "{:,}".format(count) }}</td></tr>
{% endfor %}</table>
{% if classes %}<h2>Class balance: {{ label }}</h2>
<table><tr><th>class</th>{% for part in rows %}<th>{{ part }}</th>{% endfor %}</tr>
{% for name, shares in classes %}<tr><td>{{ name }}</td>{% for each in shares %}<td>{{ each }}</td>{% endfor %}</tr>
{% endfor %}</table>{% endif %}
{% if features %}<h2>Features of the training part</h2>
<div class="cards">{% for each in features %}<div class="card"><b>{{ each.name }}</b>{{ each.picture }}
<div>{{ each.words }}</div>
{% if each.missing %}<div class="warn">missing: {{ each.missing }}</div>{% endif %}
{% if each.outliers %}<div class="warn">outliers: {{ each.outliers }}</div>{% endif %}</div>
{% endfor %}</div>{% endif %}
{% if correlations %}<h2>Correlations</h2>{{ correlations }}{% endif %}
{% if examples %}<h2>Examples</h2>
<table><tr>{% for name in examples[0] %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in examples %}<tr>{% for value in row.values() %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}</table>
{% endif %}
{% if means %}<h2>Mean image of each class</h2><div class="cards">{% for each in means %}
<div><img alt="{{ each.label }}" width="96" src="data:image/png;base64,{{ each.body }}"><br>{{ each.label }}</div>
{% endfor %}</div>{% endif %}
{% if pictures %}<h2>Examples</h2><div class="cards">{% for each in pictures %}
<div><img alt="{{ each.label }}" width="96" src="data:image/png;base64,{{ each.body }}"><br>{{ each.label }}</div>
{% endfor %}</div>{% endif %}
</html>
"""
_TEMPLATES = jinja2.Environment(autoescape=True)


def render(
    data: Data,
    statistics: Statistics,
    fitted: Fitted,
    profile: Mapping[str, Any],
    rows: Mapping[str, int],
    dropped: Mapping[str, int],
    directory: Path,
) -> str:
    """The page. `directory` holds the prepared arrays, of which images are shown."""
    images, targets = _images(fitted, directory)
    return _TEMPLATES.from_string(_PAGE).render(
        source=data.source,
        rows=rows,
        dropped=dropped,
        label=fitted.roles.label,
        classes=_classes(statistics, list(rows.values())),
        features=[
            *_number_cards(statistics, profile, fitted.roles.numbers),
            *_category_cards(profile),
            *image_cards(images),
        ],
        correlations=_correlations(statistics, fitted) or _channels_together(images),
        examples=_examples(statistics),
        means=_mean_images(images, targets, fitted),
        pictures=_pictures(images[:_EXAMPLES], targets[:_EXAMPLES], fitted),
    )


def _classes(statistics: Statistics, sizes: Sequence[int]) -> list[tuple[str, list[str]]]:
    values = sorted({value for counts in statistics.labels.values() for value in counts}, key=str)
    table = []
    for value in values[:100]:
        counts = [statistics.labels.get(part, {}).get(value, 0) for part in range(len(sizes))]
        shares = [f"{count:,} ({count / size:.1%})" if size else "0" for count, size in zip(counts, sizes, strict=True)]
        table.append((str(value), shares))
    return table


def _number_cards(statistics: Statistics, profile: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    cards = []
    for name in names:
        facts = profile["numbers"][name]
        values = known_values(statistics, name)
        first, median, third = quantiles(facts, np.array([0.25, 0.5, 0.75])).tolist()
        outside = (values < first - 1.5 * (third - first)) | (values > third + 1.5 * (third - first))
        cards.append(
            {
                "name": name,
                "picture": histogram(values),
                "words": f"mean {facts['mean']:.4g}, deviation {facts['deviation']:.4g}, "
                f"median {median:.4g}, from {facts['min']:.4g} to {facts['max']:.4g}",
                "missing": _share(facts["missing"], profile["rows"]),
                "outliers": _share(int(outside.sum()), len(values)),
            }
        )
    return cards


def _category_cards(profile: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "picture": bars(list(facts["values"].items())[:_BARS]),
            "words": f"{len(facts['values'])}{'+' if facts['other'] else ''} values",
            "missing": _share(facts["missing"], profile["rows"]),
        }
        for name, facts in profile["categories"].items()
    ]


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.2%})" if count else ""


def histogram(values: npt.NDArray[np.float64], width: int = 300, height: int = 80) -> Markup:
    """The distribution of numbers as bars, between the least and the greatest."""
    if not len(values):
        return _svg(width, height, "")
    counts, edges = np.histogram(values, bins=_BINS)
    step = width / _BINS
    body = "".join(
        f'<rect class="bar" x="{place * step:.1f}" y="{height - 12 - tall:.1f}" width="{step - 1:.1f}" '
        f'height="{tall:.1f}"/>'
        for place, tall in enumerate(counts / counts.max() * (height - 14))
    )
    labels = f'<text x="0" y="{height - 1}">{edges[0]:.4g}</text>'
    labels += f'<text x="{width}" y="{height - 1}" text-anchor="end">{edges[-1]:.4g}</text>'
    return _svg(width, height, body + labels)


def bars(counts: Sequence[tuple[str, int]], width: int = 300) -> Markup:
    """How often each value occurs, a bar a value."""
    most = max((count for _, count in counts), default=1)
    body = "".join(
        f'<rect class="bar" x="90" y="{place * 14 + 2}" width="{count / most * (width - 145):.1f}" height="10"/>'
        f'<text x="86" y="{place * 14 + 11}" text-anchor="end">{escape(str(name)[:16])}</text>'
        f'<text x="{94 + count / most * (width - 145):.1f}" y="{place * 14 + 11}">{count:,}</text>'
        for place, (name, count) in enumerate(counts)
    )
    return _svg(width, 14 * len(counts) + 4, body)


def _correlations(statistics: Statistics, fitted: Fitted) -> Markup | None:
    """Pearson's, between the first columns of numbers and the label where it is one."""
    label = fitted.roles.label
    names = [*fitted.roles.numbers[:_CORRELATED], *((label,) if label and not fitted.roles.classes else ())]
    if len(names) < 2:
        return None
    values = numbers(statistics.sample, names)
    return _matrix(values[np.isfinite(values).all(axis=1)], names)


def _channels_together(images: Images) -> Markup | None:
    """Pearson's, between the channels' means over each image."""
    channels = images.shape[1]
    return _matrix(images.mean(axis=(2, 3)), [f"channel {each}" for each in range(channels)]) if channels > 1 else None


def _matrix(values: npt.NDArray[Any], names: Sequence[str]) -> Markup | None:
    """Pearson's correlations of the columns of `values` [rows, names], as coloured squares."""
    if len(values) < 2:
        return None
    centred = values - values.mean(axis=0)
    lengths = np.sqrt((centred**2).sum(axis=0))
    matrix = (centred.T @ centred) / np.maximum(np.outer(lengths, lengths), 1e-300)
    body = ""
    for row, name in enumerate(names):
        body += f'<text x="136" y="{row * 16 + 12}" text-anchor="end">{escape(name[:22])}</text>'
        for column, other in enumerate(names):
            value = float(matrix[row, column])
            fill = (
                f"rgb({255 - int(max(-value, 0) * 200)},{255 - int(abs(value) * 160)},{255 - int(max(value, 0) * 200)})"
            )
            body += (
                f'<rect x="{140 + column * 16}" y="{row * 16}" width="15" height="15" fill="{fill}">'
                f"<title>{escape(name)} and {escape(other)}: {value:.3f}</title></rect>"
            )
    return _svg(140 + 16 * len(names), 16 * len(names), body)


def _examples(statistics: Statistics) -> list[dict[str, str]]:
    if statistics.sample is None or len(statistics.sample.column_names) < 2:
        return []
    rows: list[dict[str, Any]] = statistics.sample.slice(0, _EXAMPLES).to_pylist()
    return [{name: _short(value) for name, value in row.items()} for row in rows]


def _short(value: Any) -> str:
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _images(fitted: Fitted, directory: Path) -> tuple[Images, Sequence[Any]]:
    """The first prepared images [n, 1 or 3, height, width] with their targets; none where the data are no images."""
    nothing: tuple[Images, Sequence[Any]] = (np.zeros((0, 1, 1, 1), np.float32), [])
    if fitted.roles.image is None and fitted.roles.tensor is None:
        return nothing
    images = np.load(directory / "train" / "inputs.npy", mmap_mode="r")[:_LOOKED_AT]
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        return nothing
    file = directory / "train" / "targets.npy"
    return images, np.load(file)[:_LOOKED_AT] if file.exists() else [None] * len(images)


def image_cards(images: Images) -> list[dict[str, Any]]:
    """Each channel's values as they are prepared, and how bright images are: one far from the others may be a bad one."""
    if not len(images):
        return []
    cards = [
        {
            "name": f"channel {place}, as prepared",
            "picture": histogram(values),
            "words": f"mean {values.mean():.4g}, deviation {values.std():.4g}, from {values.min():.4g} to {values.max():.4g}",
        }
        for place, values in enumerate(np.moveaxis(images, 1, 0))
    ]
    bright, blank = images.mean(axis=(1, 2, 3)), int((np.ptp(images, axis=(1, 2, 3)) == 0).sum())
    first, third = np.quantile(bright, (0.25, 0.75))
    outside = (bright < first - 1.5 * (third - first)) | (bright > third + 1.5 * (third - first))
    brightness = {
        "name": "mean of an image",
        "picture": histogram(bright),
        "words": f"of the first {len(images):,} images",
        "missing": f"{_share(blank, len(images))} of one colour" if blank else "",
        "outliers": _share(int(outside.sum()), len(images)),
    }
    return [*cards, brightness]


def _mean_images(images: Images, targets: Sequence[Any], fitted: Fitted) -> list[dict[str, str]]:
    if not len(images) or fitted.classes is None:
        return []
    classes = np.asarray(targets)
    shown = np.unique(classes)[:_EXAMPLES]
    return [{"body": _png(images[classes == each].mean(axis=0)), "label": _label(each, fitted)} for each in shown]


def _pictures(images: Images, targets: Sequence[Any], fitted: Fitted) -> list[dict[str, str]]:
    """The first prepared images, back in a range that can be seen."""
    return [
        {"body": _png(image), "label": _label(target, fitted)} for image, target in zip(images, targets, strict=True)
    ]


def _label(target: Any, fitted: Fitted) -> str:
    if target is None:
        return ""
    return str(fitted.classes[int(target)]) if fitted.classes is not None else f"{target:.4g}"


def _png(image: npt.NDArray[np.float32]) -> str:
    low, high = float(image.min()), float(image.max())
    grey = ((image - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    array = grey[0] if grey.ndim == 3 and grey.shape[0] == 1 else np.moveaxis(grey, 0, -1) if grey.ndim == 3 else grey
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "png")
    return base64.b64encode(stream.getvalue()).decode()


def _svg(width: float, height: float, body: str) -> Markup:
    return Markup(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img">{body}</svg>')
