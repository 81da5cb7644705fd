"""The Python API does what the verbs do: same options, same results, same errors."""

import inspect
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imnetprep import api
from imnetprep.catalog.datasets import Root
from imnetprep.cli import imnetprep
from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.predict import Prediction
from tests.conftest import Run
from tests.servers import BUCKET, S3Server, s3_served, web_served

SMALL: dict[str, Any] = {
    "recipe": "finetune",
    "arch": "cnn-small",
    "image_size": 16,
    "batch_size": 20,
    "amp": False,
    "device": "cpu",
    "workers": 0,
}


@pytest.fixture(scope="module")
def trained(drawn: Root, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with one, of two epochs."""
    runs = tmp_path_factory.mktemp("trained") / "runs"
    epochs = list(api.train(drawn.path, runs=runs, run="a", epochs=2, lr=0.05, **SMALL))
    assert [each.epoch for each in epochs] == [1, 2]
    return runs


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_served(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.mark.parametrize(
    "verb", ["divide", "download", "evaluate", "inspect", "plot", "predict", "train"]
)
def test_options_are_called_as_on_the_command_line(verb: str) -> None:
    flags = {flag for each in imnetprep.commands[verb].params for flag in each.opts}
    names = [
        name
        for name, each in inspect.signature(getattr(api, verb)).parameters.items()
        if each.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    assert [name for name in names if f"--{name.replace('_', '-')}" not in flags] == (
        ["run"] if verb == "plot" else []  # of which the verb takes several
    )


def test_a_zip_of_a_server_becomes_a_divided_root(
    drawn: Root, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served = tmp_path / "served"
    served.mkdir()
    with zipfile.ZipFile(served / "pets.zip", "w") as file:
        for path in sorted((drawn.path / "train").glob("*/*")):
            file.write(path, f"pets/{path.parent.name}/{path.name}")
        file.writestr("pets/n10000000/666.jpg", b"")
    with web_served(served) as server:
        (archive,) = api.download(f"{server.address}/pets.zip", tmp_path / "download")
    images = api.unpack(archive, tmp_path / "unpacked") / "pets"
    with pytest.raises(ImnetprepError, match="1 file that cannot be taken"):
        api.divide(images, tmp_path / "divided")
    splits = api.divide(images, tmp_path / "divided", skip_bad=True)
    assert {each.split: each.samples for each in splits} == {"train": 42, "val": 18}
    assert f"left out: {images}/n10000000/666.jpg is empty" in capsys.readouterr().err
    assert api.divide(images, tmp_path / "divided", skip_bad=True) == splits


def test_what_a_run_scores_is_what_the_verb_says(
    drawn: Root, trained: Path, tmp_path: Path, here: Run
) -> None:
    best = api.best_checkpoint(drawn.path, runs=trained, run="a")
    evaluation = api.evaluate(drawn.path, best, report=tmp_path / "report", device="cpu")
    done = here("evaluate", best, "--root", drawn.path, "--device", "cpu", "--quiet")
    assert evaluation.lines()[0] in done.stdout
    assert (tmp_path / "report" / "report.html").exists()
    score = evaluation.score
    assert len(evaluation.mistakes()) == score.images - score.top1
    for path in evaluation.mistakes():
        (answer,) = api.predict(best, [path], device="cpu", top=1)
        assert isinstance(answer, Prediction)
        assert answer.best[0].wnid != path.parent.name


def test_predictions_are_those_of_the_verb(
    drawn: Root, trained: Path, tmp_path: Path, here: Run
) -> None:
    images = sorted((drawn.path / "val" / "n10000001").iterdir())[:2]
    (tmp_path / "no.jpg").write_bytes(b"<html>")
    words = [trained / "a" / "best.pt", *images, tmp_path / "no.jpg"]
    results = api.predict(words[0], words[1:], device="cpu", draw=tmp_path / "seen.png")
    done = here("predict", *words, "--device", "cpu")
    assert done.stdout == "".join(f"{each}\n" for each in results)
    assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_are_drawn_where_they_are_named(
    drawn: Root, trained: Path, tmp_path: Path
) -> None:
    sheet = api.inspect(drawn.path, tmp_path / "look.png", images=2, image_size=32)
    curves = api.plot(drawn.path, tmp_path / "curves.png", runs=trained, run="a")
    for path in (sheet, curves):
        assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epoch": 3}, "'epoch' is no option of a recipe"),
        ({"epochs": "3"}, "epochs='3' is no int"),
        ({"mirror": 1}, "mirror=1 is no bool"),
        ({"recipe": "finetuned"}, "recipe='finetuned' is unknown"),
        ({"epochs": 0}, "--epochs 0"),
    ],
)
def test_what_no_recipe_takes_is_refused_before_anything_is_read(
    options: dict[str, Any], words: str, drawn: Root, tmp_path: Path
) -> None:
    with pytest.raises(WrongUsage, match=words):
        list(api.train(drawn.path, runs=tmp_path / "runs", **{**SMALL, **options}))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("share", [0, 1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float, tmp_path: Path) -> None:
    with pytest.raises(WrongUsage, match="is no share"):
        api.divide(tmp_path, tmp_path / "root", val_fraction=share)


def test_a_file_of_a_stranger_is_no_checkpoint(drawn: Root, tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(b"no weights")
    with pytest.raises(ImnetprepError, match="is not a checkpoint"):
        api.evaluate(drawn.path, tmp_path / "best.pt", device="cpu")


def test_a_run_in_a_bucket_outlives_the_machine(
    s3: S3Server, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    place = f"s3://{BUCKET}/pets"
    options = {**SMALL, "runs": place, "resume": True, "epochs": 3, "lr": 0.05}
    first = api.train(root.path, **options)
    assert next(first).epoch == 1
    first.close()  # type: ignore[attr-defined]
    shutil.rmtree(root.path / "runs")
    second = api.train(root.path, **options)
    assert next(second).epoch == 2
    second.close()  # type: ignore[attr-defined]
    assert [each.epoch for each in api.train(root.path, **options)] == [3]  # nothing was lost
    shutil.rmtree(root.path / "runs")
    assert not [*api.train(root.path, **options)]
    assert api.best_checkpoint(root.path, runs=place).is_file()
