"""Parts of a page that needs no other file, no script and no network: its look, lists, images.

Whatever is shown is text to it: names of classes come from strangers.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from imnetprep.outside_text import shown

Tables = Mapping[str, Mapping[str, str]]  # facts by their headings

MOST_ROWS = 12
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
.large { grid-template-columns: repeat(auto-fill, minmax(144px, 1fr)) }
.wide { grid-template-columns: minmax(0, 760px); gap: 1.2rem }
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
.pairs dt { flex: 0 1 26em }
.pairs dd { white-space: nowrap }
.many { grid-template-columns: repeat(auto-fill, minmax(min(100%, 290px), 1fr)); gap: 0 2rem }
meter { width: 8em; max-width: 30vw }
"""


@dataclass(frozen=True)
class Sample:
    """An image as the network saw it, encoded as PNG or JPEG, what it shows, and of which file."""

    body: bytes
    name: str
    file: str = ""


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


def html_page(title: str, body: str) -> bytes:
    """The page under `title`, whose `body` is HTML."""
    title = text(title)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title><style>{_STYLE}</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
""".encode(errors="replace")


def image_grid(title: str, samples: Sequence[Sample], *, look: str = "") -> str:
    """Images with what they show; `look` is a CSS class."""
    images = "".join(
        f'<figure><img alt="" title="{text(sample.file)}" src="{_address(sample.body)}">'
        f"<figcaption>{text(sample.name)}</figcaption></figure>"
        for sample in samples
    )
    return f'<h2>{text(title)}</h2><div class="images {look}">{images}</div>' if images else ""


def _address(image: bytes) -> str:
    """The image itself as an address (RFC 2397)."""
    form = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{form};base64,{b64encode(image).decode()}"


def worst_classes(title: str, classes: Sequence[ClassScore]) -> str:
    """The classes with the least share of right images."""
    rows = [
        (
            text(each.name),
            f'<meter value="{each.share:.3f}"></meter> {each.hits[0]:,}/{each.hits[1]:,}',
        )
        for each in sorted(classes, key=lambda each: each.share)[:MOST_ROWS]
        if each.hits[1]
    ]
    return listed(title, rows) if rows else ""


def table(title: str, rows: Mapping[str, str]) -> str:
    """Facts by their names."""
    return listed(title, [(text(key), text(value)) for key, value in rows.items()])


def listed(title: str, rows: Sequence[tuple[str, str]], *, look: str = "") -> str:
    """Terms and their texts, both HTML, in columns where they are many; `look` is a CSS class."""
    look = look or "many" * (len(rows) > MOST_ROWS)
    lines = "".join(f"<div><dt>{term}</dt><dd>{value}</dd></div>" for term, value in rows)
    return f'<h2>{text(title)}</h2><dl class="{look}">{lines}</dl>'


def text(value: object) -> str:
    """A text of a stranger as HTML shows it: no tag, no control character, no secret."""
    return escape(shown(value))
