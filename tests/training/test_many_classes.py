"""A training of more classes than 16 bits count: 40,000, most of them without an image."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.catalog.listing import listed_dataset
from imnetprep.evaluation.evaluate import evaluate
from imnetprep.layouts.imagefolder import make_class_folder, write_sample
from imnetprep.manifest import SampleRecord, manifest_written, open_manifest
from imnetprep.messages import Silent
from imnetprep.samples.sample_list import read_samples
from imnetprep.training.checkpoint import load_checkpoint
from imnetprep.training.loop import train
from imnetprep.training.plan import plan_training
from imnetprep.training.runs import Run

LABELS = (0, 32_767, 32_768, 39_999)
NAMES = ["0.jpg", "1.jpg", "2.jpg"]


def _jpeg(grey: int) -> bytes:
    body = io.BytesIO()
    Image.new("RGB", (36, 36), (60 * grey,) * 3).save(body, "JPEG")
    return body.getvalue()


def many_classes(path: Path) -> Root:
    names = {f"class {label:05}": NAMES if label in LABELS else [] for label in range(40_000)}
    splits = (Split.TRAIN, Split.VAL)
    dataset, root = listed_dataset("many", "Many", dict.fromkeys(splits, names)), Root(path)

    def samples(split: Split) -> Iterator[SampleRecord]:
        for label in LABELS:
            folder = make_class_folder(root.split(split), f"class {label:05}")
            for name in NAMES:
                body = _jpeg(LABELS.index(label))
                write_sample(str(folder), name, body)
                yield SampleRecord.of_body(label, name, body)

    with manifest_written(root.manifest, dataset) as manifest:
        for split in splits:
            manifest.add_split(split, Layout.IMAGEFOLDER, samples(split))
    return root


def test_forty_thousand_classes_are_trained_and_scored(tmp_path: Path) -> None:
    root = many_classes(tmp_path)
    with open_manifest(root.manifest) as manifest:
        samples = read_samples(manifest, Split.TRAIN, root)
    assert samples.labels.tolist() == np.repeat(LABELS, len(NAMES)).tolist()
    options = {"arch": "squeezenet1_1", "image_size": 32, "batch_size": 12, "epochs": 1, "lr": 0.01}
    plan = plan_training(root, options=options, device="cpu", workers=0, progress=Silent())
    (report,) = train(plan, progress=Silent())
    best = Run(root.run("squeezenet1_1")).best
    assert load_checkpoint(best).classes.wnids[39_999] == "class 39999"
    score = evaluate(root, best, device="cpu", workers=0, progress=Silent()).score
    assert score == report.val and score.images == 12
