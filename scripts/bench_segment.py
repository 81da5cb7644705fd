"""`scripts/bench segment`: foreground of 25 frames of changedetection.net, in five folds.

IMNETPREP_TEST_DATA/cdnet/train has the frames and masks, IMNETPREP_TEST_DATA/weights the encoder's
weights. Each fold trains on 20 frames and is scored on the five that it never saw;
IMNETPREP_BENCH_FOLDS=0,1 are some of them.
"""

import json
import os
import random
import subprocess
import time
from pathlib import Path

FOLDS = [int(word) for word in os.environ.get("IMNETPREP_BENCH_FOLDS", "0,1,2,3,4").split(",")]
_IMNETPREP = Path(__file__).resolve().parent.parent / ".venv" / "bin" / "imnetprep"
_ENCODER = "tf_efficientnet_lite0"
_TRAIN = (
    f"train --task segment --arch unet/{_ENCODER} --freeze until:encoder.model.blocks.6"
    " --device cpu --json --quiet --run fold"
)


def main(folder: Path) -> None:
    """Print the score of each fold on its own frames, its minutes, and the means."""
    data = Path(os.environ["IMNETPREP_TEST_DATA"])
    frames = sorted((data / "cdnet/train/x").iterdir())
    random.Random(0).shuffle(frames)
    scores = []
    for fold in FOLDS:
        root = folder / f"fold{fold}"
        for number, frame in enumerate(frames):
            split = "val" if number % 5 == fold else "train"
            mask = data / "cdnet/train/y" / f"gt{frame.stem.removeprefix('in')}.png"
            for path, place in ((frame, root / split / "x"), (mask, root / split / "y")):
                place.mkdir(parents=True, exist_ok=True)
                (place / path.name).symlink_to(path)
        began_s = time.monotonic()
        weights = data / "weights" / f"{_ENCODER}.pth"
        folders = ["--root", str(root), "--runs", str(root / "runs")]
        words = [*_TRAIN.split(), *folders, "--weights", str(weights)]
        lines = _lines(*words)
        minutes = (time.monotonic() - began_s) / 60
        (score,) = _lines("evaluate", *folders, "--json", "--quiet")
        scores.append(score)
        print(
            f"fold {fold}: F {score['f_percent']:.2f} %, IoU {score['iou_percent']:.2f} %, pixels"
            f" {score['accuracy_percent']:.3f} % (all background"
            f" {score['all_background_percent']:.2f} %), {len(lines)} epochs in {minutes:.1f} min",
            flush=True,
        )
    for name in ("f_percent", "iou_percent", "accuracy_percent"):
        print(f"mean {name}: {sum(each[name] for each in scores) / len(scores):.3f}")


def _lines(*words: str) -> list[dict[str, float]]:
    result = subprocess.run([_IMNETPREP, *words], check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in result.stdout.splitlines()]
