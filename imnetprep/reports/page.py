"""`report.html`: a run on one page that needs no other file, no script and no network.

Whatever is shown of a run is text to it: names of classes come from strangers.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from imnetprep.fs import written_whole
from imnetprep.messages import format_duration
from imnetprep.outside_text import shown
from imnetprep.reports.curves import Curve, chart
from imnetprep.reports.log import Line, best_of, epoch_lines, place, step_lines

Tables = Mapping[str, Mapping[str, str]]  # facts by their headings

_WORST = 12
_STYLE = """
:root { color-scheme: light dark; --ink: #1d232b; --faint: #6b7684; --rule: #e3e7ec;
  --train: #7a8ba3; --val: #c2452d; --paper: #fff }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --faint: #98a2b0; --rule: #333b45; --val: #e8705a; --paper: #15191e } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem; max-width: 1060px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; margin: 0 }
h2 { font-size: 1.05rem; margin: 2rem 0 .6rem }
p { margin: .2rem 0 }
.best { font-size: 1.15rem }
.faint, figcaption { color: var(--faint) }
figure { margin: 0 }
figcaption { font-size: .85rem }
figcaption span { margin-left: .8em; white-space: nowrap }
.grid, .images, .many { display: grid; gap: 1rem }
.grid { grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)) }
.images { grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); gap: .6rem }
.images img { width: 100%; display: block }
.images figcaption { line-height: 1.2; padding-top: .2rem }
svg { width: 100%; height: auto; display: block }
svg text { font-size: 11px; fill: var(--faint) }
line { stroke: var(--rule) }
polyline { fill: none; stroke-width: 1.8; stroke: var(--look) }
circle { fill: var(--look) }
span { color: var(--look) }
.train { --look: var(--train) }
.val { --look: var(--val) }
.thin { stroke-width: 1; opacity: .5 }
.dotted { stroke-dasharray: 3 3; text-decoration: underline dotted }
dl { margin: 0 }
dl div { display: flex; gap: 1rem; padding: .15rem 0; border-top: 1px solid var(--rule) }
dt { color: var(--faint); flex: 0 0 9em }
dd { margin: 0 }
.many { grid-template-columns: repeat(auto-fill, minmax(min(100%, 290px), 1fr)); gap: 0 2rem }
meter { width: 8em; max-width: 30vw }
"""


@dataclass(frozen=True)
class Sample:
    """An image as the network saw it, encoded as PNG, and what it shows."""

    png: bytes
    name: str


@dataclass(frozen=True)
class ClassScore:
    """How many validation images of a class were right (top-1), and how many there are."""

    name: str
    hits: tuple[int, int]

    @property
    def share(self) -> float:
        """Share of images that were right, from 0 to 1; 1 without an image."""
        top1, images = self.hits
        return top1 / images if images else 1.0


@dataclass(frozen=True)
class Page:
    """What the page shows of a run: its log, and tables of facts by their headings."""

    title: str
    lines: Sequence[Line]
    tables: Tables
    samples: Sequence[Sample] = ()
    classes: Sequence[ClassScore] = ()


def write_page(page: Page, path: Path) -> None:
    """Write the page, whole or not at all."""
    with written_whole(path) as file:
        file.write(_html(page).encode(errors="replace"))


def _html(page: Page) -> str:
    title = _text(page.title)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title><style>{_STYLE}</style></head><body>
<h1>{title}</h1>
{_summary(page.lines)}
<h2>Curves</h2>
<div class="grid">{_charts(page.lines)}</div>
{_samples(page.samples)}{_worst(page.classes)}
{"".join(_table(name, rows) for name, rows in page.tables.items())}
</body></html>
"""


def _summary(lines: Sequence[Line]) -> str:
    epochs = epoch_lines(lines)
    if not epochs:
        return '<p class="best">no epoch is over</p>'
    best, last, title = best_of(lines), epochs[-1], "not validated"
    if best:
        val = best["val"]
        title = (
            f"best: epoch {best['epoch']}, top-1 {val['top1']:,}/{val['images']:,} ="
            f" {val['top1_percent']:.2f} %, top-5 {val['top5_percent']:.2f} %"
        )
    seconds = sum(line["seconds"] for line in epochs)
    return (
        f'<p class="best">{title}</p>'
        f'<p class="faint">{last["epoch"]} of {last["epochs"]} epochs,'
        f" {format_duration(seconds)} of training</p>"
    )


def _charts(lines: Sequence[Line]) -> str:
    epochs, steps = epoch_lines(lines), step_lines(lines)

    def of_epochs(*keys: str) -> list[tuple[float, float]]:
        values = []
        for line in epochs:
            value = line
            for key in keys:
                value = value.get(key, {})
            if value != {}:
                values.append((float(line["epoch"]), float(value)))  # type: ignore[arg-type]
        return values

    def of_steps(key: str) -> list[tuple[float, float]]:
        return [(place(line), float(line[key])) for line in steps]

    rates = [(x - 1, y) for x, y in of_epochs("lr")]
    rates += [(place(line, is_end=False), float(line["lr"])) for line in steps]
    return "".join([
        chart("loss", [
            Curve("", of_steps("loss"), "train thin"),
            Curve("train", of_epochs("train", "loss"), "train"),
            Curve("val", of_epochs("val", "loss"), "val"),
        ]),
        chart("accuracy, %", [
            Curve("train top-1", of_epochs("train", "top1_percent"), "train"),
            Curve("val top-5", of_epochs("val", "top5_percent"), "val dotted"),
            Curve("val top-1", of_epochs("val", "top1_percent"), "val"),
        ], low=0),
        chart("learning rate", [Curve("", sorted(rates), "val")], low=0),
        chart("images/s", [
            Curve("", of_steps("images_per_second"), "train thin"),
            Curve("", of_epochs("images_per_second"), "val"),
        ], low=0),
    ])  # fmt: skip


def _samples(samples: Sequence[Sample]) -> str:
    images = "".join(
        f'<figure><img alt="" src="data:image/png;base64,{b64encode(sample.png).decode()}">'
        f"<figcaption>{_text(sample.name)}</figcaption></figure>"
        for sample in samples
    )
    title = "A training batch, as the network saw it"
    return f'<h2>{title}</h2><div class="images">{images}</div>' if images else ""


def _worst(classes: Sequence[ClassScore]) -> str:
    """The classes with the least share of right images."""
    rows = [
        (
            _text(each.name),
            f'<meter value="{each.share:.3f}"></meter> {each.hits[0]:,}/{each.hits[1]:,}',
        )
        for each in sorted(classes, key=lambda each: each.share)[:_WORST]
        if each.hits[1]
    ]
    return _list("Worst classes of the last validation (top-1)", rows) if rows else ""


def _table(name: str, rows: Mapping[str, str]) -> str:
    return _list(_text(name), [(_text(key), _text(value)) for key, value in rows.items()])


def _list(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Terms and their texts, in columns where they are many."""
    look = ' class="many"' if len(rows) > _WORST else ""
    texts = "".join(f"<div><dt>{term}</dt><dd>{text}</dd></div>" for term, text in rows)
    return f"<h2>{title}</h2><dl{look}>{texts}</dl>"


def _text(value: object) -> str:
    """A text of a stranger as HTML shows it: no tag, no control character, no secret."""
    return escape(shown(value))
