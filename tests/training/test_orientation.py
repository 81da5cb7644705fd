"""Images of one's own are seen upright by all that looks at them; others as they lie."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.contact_sheet import pictures
from imnetprep.evaluation.evaluate import evaluate
from imnetprep.extracting.class_folders import ResizedFolders
from imnetprep.extracting.sink import Batch, Sample
from imnetprep.images import Resize
from imnetprep.manifest import open_manifest
from imnetprep.messages import Silent
from imnetprep.networks.model import build_model
from imnetprep.predict import Prediction, predictions
from imnetprep.recipes.plan_recipe import plan_recipe
from imnetprep.samples.sample_list import SampleList, read_samples
from imnetprep.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from imnetprep.training.plan import plan_training
from tests.conftest import Run


def _photograph(*, turned: bool) -> bytes:
    """A bright sky, once it is turned clockwise by 90 degrees, or as it lies."""
    image, exif, body = Image.new("RGB", (64, 40), "black"), Image.Exif(), io.BytesIO()
    image.paste("white", (0, 0, 20, 40))
    exif[0x0112] = 6
    if turned:
        image = image.transpose(Image.Transpose.ROTATE_270)
    image.save(body, "PNG", **({} if turned else {"exif": exif}))
    return body.getvalue()


def _is_upright(image: Image.Image) -> bool:
    sky, ground = image.convert("L").resize((1, 2), Image.Resampling.BOX).tobytes()
    return image.height > image.width and sky > ground


@pytest.fixture
def photographs(tmp_path: Path, here: Run) -> Root:
    for name in ("owl", "elk"):
        (tmp_path / "by class" / name).mkdir(parents=True)
        for number in range(6):
            (tmp_path / "by class" / name / f"{number}.png").write_bytes(_photograph(turned=False))
    root = Root(tmp_path / "root")
    words = "divide", tmp_path / "by class", "--root", root.path, "--val-fraction", "0.3"
    assert here(*words).returncode == 0
    return root


def _samples(root: Root, layout: Layout | None = None) -> SampleList:
    with open_manifest(root.manifest) as manifest:
        return read_samples(manifest, Split.TRAIN, root, layout=layout)


def _first_checkpoint(root: Root) -> Checkpoint:
    options = {"arch": "resnet18", "image_size": 32}
    plan = plan_training(root, options=options, device="cpu", progress=Silent())
    return plan.begin(Silent())[1]


def test_training_and_previews_turn_images_of_ones_own_alone(
    photographs: Root, drawn: Root
) -> None:
    samples = _samples(photographs)
    assert _is_upright(Image.fromarray(samples.pixels(0)))
    recipe = plan_recipe({"image_size": 32}, amp_pays=False)
    assert _is_upright(pictures(samples, 0, recipe)[0])
    assert _first_checkpoint(photographs).preprocessing.apply_orientation
    assert not _samples(drawn).apply_orientation
    assert not _first_checkpoint(drawn).preprocessing.apply_orientation


def test_images_made_smaller_are_upright_and_stay_so(photographs: Root, here: Run) -> None:
    words = "--root", photographs.path, "--layout", "webdataset", "--resize", 20
    assert here("organize", *words).returncode == 0
    assert here("verify", *words[:-2], "--digests", "--decode").returncode == 0
    samples = _samples(photographs, Layout.WEBDATASET)
    with tarfile.open(samples.path(0)) as shard:
        stored = [shard.extractfile(each) for each in shard if each.name.endswith(".jpg")]
        assert stored and all(each and _is_upright(Image.open(each)) for each in stored)
    assert all(_is_upright(Image.fromarray(samples.pixels(at))) for at in range(len(samples)))


def test_class_folders_made_smaller_are_upright(photographs: Root, tmp_path: Path) -> None:
    with open_manifest(photographs.manifest) as manifest:
        dataset = manifest.dataset()
    sink = ResizedFolders(dataset, tmp_path / "smaller", Resize(20), jobs=1)
    (record,) = sink.write(Batch(Split.TRAIN, [Sample(0, "a.png", _photograph(turned=False))]))
    (path,) = (tmp_path / "smaller").rglob("a.png")
    assert record.change == "resized 20 q90"
    assert _is_upright(Image.open(path))


def test_predict_and_evaluate_turn_what_the_network_was_trained_on_turned(
    photographs: Root, tmp_path: Path
) -> None:
    first, path = _first_checkpoint(photographs), tmp_path / "c.pt"
    weights = build_model("resnet18", classes=2, image_size=32, seed=0).state_dict()
    shares, scores = {}, {}
    for applied in (True, False):
        preprocessing = replace(first.preprocessing, apply_orientation=applied)
        save_checkpoint(path, replace(first, weights=weights, preprocessing=preprocessing))
        assert load_checkpoint(path).preprocessing == preprocessing
        for name in ("lying", "upright"):
            image = tmp_path / f"{name}.png"
            image.write_bytes(_photograph(turned=name == "upright"))
            (found,) = predictions(load_checkpoint(path), [image], device="cpu", best=2)
            assert isinstance(found, Prediction)
            shares[applied, name] = found.best
        score = evaluate(photographs, path, device="cpu", workers=0, progress=Silent()).score
        scores[applied] = score.loss
    assert shares[True, "lying"] == shares[True, "upright"] == shares[False, "upright"]
    assert shares[False, "lying"] != shares[False, "upright"]
    assert scores[True] != scores[False]
