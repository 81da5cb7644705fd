"""The files of `evaluate --report`: a page to look at, and tables for other programs."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from imnetprep import __version__
from imnetprep.catalog.datasets import Synset
from imnetprep.evaluation.evaluate import Evaluation
from imnetprep.evaluation.guesses import BINS
from imnetprep.fs import existing_folder, written_whole
from imnetprep.images import encode_jpeg
from imnetprep.messages import ImnetprepError, count
from imnetprep.outside_text import shown
from imnetprep.pixels.transforms import ValTransform, network_view
from imnetprep.reports.evaluation_page import Confusion, EvaluationPage
from imnetprep.reports.parts import ClassScore, Sample

PAGE = "report.html"
_SHOWN_MISTAKES = 24


def require_writable(folder: Path) -> None:
    """Raise ImnetprepError where nothing can be written into `folder`, before all is scored."""
    place = existing_folder(folder)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ImnetprepError(
            f"{folder} is not to be written to: {place} is"
            + (" read-only, or another user's" if place.is_dir() else " no folder"),
            hint="name another folder by --report",
        )
    if (folder / "log.jsonl").exists():
        raise ImnetprepError(
            f"{folder} is the folder of a training, which has a {PAGE} of its own",
            hint=f"--report {folder / 'evaluation'}",
        )


def write_report(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write the files into `folder`, each whole or not at all, and the page last."""
    bodies = {
        "classes.csv": _table(_classes(evaluation)),
        "confusion.csv": _table(_confusions(evaluation)),
        "mistakes.csv": _table(_mistakes(evaluation)),
        PAGE: _page(evaluation).html(),
    }
    for name, body in bodies.items():
        with written_whole(folder / name) as file:
            file.write(body)
    return [folder / name for name in reversed(bodies)]


def _table(rows: Iterable[tuple[object, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([shown(cell) for cell in row] for row in rows)
    return text.getvalue().encode(errors="replace")


def _classes(evaluation: Evaluation) -> Iterator[tuple[object, ...]]:
    yield "wnid", "name", "images", "top1", "top5", "guesses"
    counts = evaluation.guesses.counts(len(evaluation.synsets))
    for synset, *row in zip(evaluation.synsets, *counts, strict=True):
        yield synset.wnid, synset.name, *row


def _confusions(evaluation: Evaluation) -> Iterator[tuple[object, ...]]:
    yield "wnid", "name", "guess_wnid", "guess_name", "images"
    for pair in evaluation.guesses.confusions():
        truth, guess = (evaluation.synsets[label] for label in (pair.label, pair.guess))
        yield truth.wnid, truth.name, guess.wnid, guess.name, pair.images


def _mistakes(evaluation: Evaluation) -> Iterator[tuple[object, ...]]:
    yield "image", "wnid", "guess_wnid", "confidence"
    guesses, synsets = evaluation.guesses, evaluation.synsets
    for index in guesses.surest_mistakes():
        truth, guess = (synsets[each[index]] for each in (guesses.labels, guesses.guesses))
        image = f"{truth.wnid}/{evaluation.samples.name(index)}"
        yield image, truth.wnid, guess.wnid, f"{guesses.confidences[index]:.6f}"


def _page(evaluation: Evaluation) -> EvaluationPage:
    guesses, names = evaluation.guesses, _distinct_names(evaluation.synsets)
    counts, pixels = guesses.counts(len(names)), evaluation.preprocessing
    images = counts.images.tolist()
    facts = {
        "dataset": evaluation.dataset,
        "split": evaluation.samples.split.value,
        "images": f"{len(guesses.labels):,}",
        "classes": f"{len(names):,} of {evaluation.outputs:,} that the network has",
        "network": evaluation.network,
        "pixels": f"short side {pixels.resize}, centre {pixels.image_size}, {pixels.interpolation}",
        "calibration": f"expected error over {count(BINS, 'bin')} of confidence",
        "program": f"imnetprep {__version__}",
    }
    return EvaluationPage(
        title=f"{evaluation.network} on {evaluation.dataset}",
        lines=[*evaluation.lines(), evaluation.calibration()],
        classes=[
            ClassScore(name, (top1, size))
            for name, top1, size in zip(names, counts.top1.tolist(), images, strict=True)
        ],
        confusions=[
            Confusion(names[pair.label], names[pair.guess], pair.images, images[pair.label])
            for pair in guesses.confusions()
        ],
        mistakes=[
            _picture(evaluation, index, names)
            for index in guesses.surest_mistakes()[:_SHOWN_MISTAKES]
        ],
        reliability=guesses.calibration(),
        tables={"Evaluation": facts},
    )


def _picture(evaluation: Evaluation, index: int, names: list[str]) -> Sample:
    """A wrong guess, with the image as the network saw it."""
    guesses, pixels = evaluation.guesses, evaluation.preprocessing
    crop = network_view(ValTransform(pixels)(evaluation.samples.pixels(index)), pixels)
    truth, guess = (names[each[index]] for each in (guesses.labels, guesses.guesses))
    body = encode_jpeg(crop.transpose(2, 0, 1).tobytes(), pixels.image_size)
    confidence = f"{100 * guesses.confidences[index]:.1f}\u00a0%"
    return Sample(body, f"{truth} → {guess}, {confidence}", evaluation.samples.name(index))


def _distinct_names(synsets: tuple[Synset, ...]) -> list[str]:
    """The names of classes; with its wnid where several have one, such as the two cranes."""
    times = Counter(synset.name for synset in synsets)
    return [
        synset.name if times[synset.name] == 1 else f"{synset.name} ({synset.wnid})"
        for synset in synsets
    ]
