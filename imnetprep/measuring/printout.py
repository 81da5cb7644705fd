"""A measurement as people read it: devices side by side, then what holds each of them back."""

from collections.abc import Iterator, Sequence

from imnetprep.measuring.bench import Bench
from imnetprep.measuring.rates import Rate, format_rate
from imnetprep.measuring.verdict import PAYS, format_cache_size, format_times
from imnetprep.messages import count, format_duration


def lines(benches: Sequence[Bench]) -> list[str]:
    """A row for each measure, a column for each device; then the verdicts."""
    recipe, columns = benches[0].recipe, [dict(_cells(each)) for each in benches]
    head = f"{recipe.arch}, {recipe.image_size} px, batches of {recipe.batch_size}"
    titles = list(dict.fromkeys(title for column in columns for title in column))
    rows = [(head, [str(each.place.device) for each in benches])]
    rows += [(title, [column.get(title, "–") for column in columns]) for title in titles]
    first = max(len(title) for title, _ in rows)
    width = max(len(cell) for _, cells in rows for cell in cells)
    table = [
        f"{title:<{first}}  " + "  ".join(f"{cell:>{width}}" for cell in cells)
        for title, cells in rows
    ]
    return [*table, *(line for each in benches for line in _remarks(each))]


def _cells(bench: Bench) -> Iterator[tuple[str, str]]:
    """The title of each row and what was measured of it."""
    rates, time = bench.rates, bench.duration
    if rates.fetch is not None:
        yield "shards fetched, images/s", format_rate(rates.fetch)
    yield from _points("loader alone", rates.loader)
    yield from _points("device alone", rates.step)
    if rates.end_to_end is not None:
        yield "end to end, images/s", format_rate(rates.end_to_end)
    if rates.wait_share is not None:
        yield "  waiting for data", _percent(rates.wait_share)
    if rates.validation is not None:
        yield "validation, images/s", format_rate(rates.validation)
    if time:
        note = " with validation" if time.validation_s else ""
        yield f"an epoch{note}", format_duration(time.epoch_s)
        yield f"all {count(bench.recipe.epochs, 'epoch')}", format_duration(time.total_s)


def _points(title: str, points: Sequence[Rate]) -> Iterator[tuple[str, str]]:
    for side, rate in points:
        yield f"{title}{f', {side} px' * (len(points) > 1)}, images/s", format_rate(rate)


def _remarks(bench: Bench) -> Iterator[str]:
    rates = bench.rates
    yield f"{bench.place.device}: {bench.verdict}"
    recipe = bench.recipe
    if (gain := rates.gain) and gain.ratio >= PAYS:
        largest = max(recipe.val_resize, recipe.train_size)
        yield (
            f"  the recipe looks at {largest} px at most: a root of organize --resize"
            f" {gain.side_px} is read {format_times(gain.ratio)} as fast"
        )
    if rates.fetch is not None:
        size = format_cache_size(bench.needed_bytes) if bench.needed_bytes else ""
        yield (
            f"  shards come in each epoch: --cache-size {size} would hold all of them"
            if size
            else "  shards come in the first epoch: the cache holds all of them"
        )
    if rates.step_images < recipe.batch_size:
        images = count(rates.step_images, "image")
        yield f"  measured in steps of {images}: a whole batch takes longer than an interval"
    if rates.cache is not None and rates.cache < 1:
        share = _percent(rates.cache)
        yield f"  {share} of the images lay in the page cache, the others were read from the disk"
    if len(rates.step) > 1:
        yield "  crops of the sizes between are counted by their pixels"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
