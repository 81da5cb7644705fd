"""`organize --resize`: class folders of smaller images, and everything says that they are."""

from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Layout, Split
from imnetprep.images import Resize, resized_jpeg
from imnetprep.manifest import open_manifest
from imnetprep.synthetic import draw_dataset
from tests.conftest import Run, receipt_of, tree
from tests.test_shards_of_archives import _killed_at

SMALLER = ["--resize", 40, "--quality", 80]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    draw_dataset(folder, side_px=60, train_per_class=4, val_per_class=2)
    (toml,) = folder.glob("*.toml")
    return toml


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory, drawn: Path, run: Run) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("whole")
    done = run("organize", "--root", root, "--dataset", drawn, "--archives", drawn.parent)
    assert done.returncode == 0, done.stderr
    resize = Resize(40, 80)
    trees = {split: tree(root / split) for split in ("train", "val")}
    return {
        f"{split}/{name}": resized_jpeg(body, resize).body
        for split, bodies in trees.items()
        for name, body in bodies.items()
    }


def _made(root: Path) -> dict[str, bytes]:
    return {
        f"{split}/{name}": body
        for split in ("train", "val")
        for name, body in tree(root / split).items()
    }


@pytest.mark.parametrize("jobs", [1, 3])
def test_each_image_is_the_resized_one_and_it_is_said(
    drawn: Path, wanted: dict[str, bytes], tmp_path: Path, run: Run, jobs: int
) -> None:
    words = ["--root", tmp_path, "--dataset", drawn, "--archives", drawn.parent]
    done = run("organize", *words, *SMALLER, "--jobs", jobs)
    assert done.returncode == 0, done.stderr
    assert "(resize 40 q80)" in done.stdout
    assert _made(tmp_path) == wanted
    with open_manifest(tmp_path / "manifest.db") as manifest:
        held = manifest.splits()[Split.TRAIN, Layout.IMAGEFOLDER]
        changes = {sample.change for sample in manifest.samples(held, 0)}
    assert held.change == "resize 40 q80"
    assert changes == {"resized 40 q80"}
    told = receipt_of(tmp_path)["splits"]["train"]
    assert isinstance(told, dict) and told["change"] == "resize 40 q80"
    verified = run("verify", "--root", tmp_path, "--digests", "--decode")
    assert (verified.returncode, verified.stdout[:10]) == (0, "0 findings")
    assert "the train images are not as published: resize 40 q80" in verified.stderr
    assert run("organize", *words, *SMALLER).stdout == done.stdout
    for other in ([], ["--resize", 41]):
        refused = run("organize", *words, *other)
        assert refused.returncode == 1
        assert "holds other images: resize 40 q80" in refused.stderr
    assert _made(tmp_path) == wanted


@pytest.mark.training
def test_the_contact_sheet_says_it_too(drawn: Path, tmp_path: Path, run: Run) -> None:
    words = ["--root", tmp_path, "--dataset", drawn, "--archives", drawn.parent]
    assert run("organize", *words, *SMALLER).returncode == 0
    done = run("inspect", "--root", tmp_path, "--classes", 2, "--images", 2, cwd=tmp_path)
    assert "(resize 40 q80)" in done.stdout, done.stderr


def test_killed_it_goes_on_and_with_other_words_starts_over(
    drawn: Path, wanted: dict[str, bytes], tmp_path: Path, run: Run
) -> None:
    for number, (step, other) in enumerate([(6, SMALLER), (6, []), (8, ["--resize", 30])]):
        root = tmp_path / f"{number}"
        words = ["organize", "--root", root, "--dataset", drawn, "--archives", drawn.parent]
        assert _killed_at(step, [*words, *other, "--jobs", 1]) == -9
        done = run(*words, *SMALLER, "--jobs", 1)
        assert done.returncode == 0, done.stderr
        assert _made(root) == wanted


def test_an_image_that_does_not_decode_stops_it_by_name(
    packed: Path, tmp_path: Path, run: Run
) -> None:
    words = ["--root", tmp_path, "--dataset", packed, "--archives", packed.parent, "--jobs", 2]
    done = run("organize", *words, *SMALLER)
    assert done.returncode == 4
    assert ".JPEG: does not decode" in done.stderr or ".JPEG: is not an image" in done.stderr
    assert not (tmp_path / "train").exists()


def test_shards_of_archives_are_resized_too(drawn: Path, tmp_path: Path, run: Run) -> None:
    made = []
    words, archives = ["--dataset", drawn], ["--archives", drawn.parent]
    shards = ["--layout", "webdataset", "--shard-size", 9, *SMALLER]
    assert run("organize", "--root", tmp_path / "a", *words, *archives).returncode == 0
    for name, place in (("a", []), ("b", archives)):
        done = run("organize", "--root", tmp_path / name, *words, *place, *shards, "--jobs", 2)
        assert done.returncode == 0, done.stderr
        made.append(tree(tmp_path / name / "shards"))
    assert made[0] == made[1]


def _resized_root(root: Path, drawn: Path, run: Run) -> Path:
    words = ["--root", root, "--dataset", drawn, "--archives", drawn.parent]
    done = run("organize", *words, *SMALLER)
    assert done.returncode == 0, done.stderr
    return root


def test_repair_sorts_them_and_takes_no_image_as_published(
    drawn: Path, wanted: dict[str, bytes], tmp_path: Path, run: Run
) -> None:
    root = _resized_root(tmp_path / "root", drawn, run)
    first, second, *_ = sorted((root / "train").rglob("*.JPEG"))
    first.rename(root / "train" / first.name)
    gone = str(second.relative_to(root))
    second.unlink()
    (root / "archives").symlink_to(drawn.parent)
    refused = run("repair", "--root", root, "--from", drawn.parent)
    assert refused.returncode == 1
    error, hint = refused.stderr.splitlines()[-2:]
    assert "the train images are not those of their archive: resize 40 q80" in error
    assert hint.startswith("Hint: without --from misplaced files are moved")
    assert not first.exists()
    done = run("repair", "--root", root)
    assert done.returncode == 5, done.stderr
    assert "train: 1 moved, 0 taken" in done.stdout
    assert f"missing: {gone} is not there" in done.stdout
    assert "resize 40 q80: nothing is taken from there" in done.stderr
    assert _made(root) == {name: body for name, body in wanted.items() if name != gone}


def test_a_subset_of_them_says_so_too(drawn: Path, tmp_path: Path, run: Run) -> None:
    small = _resized_root(tmp_path / "small", drawn, run)
    wnids = sorted(path.name for path in (small / "train").iterdir())[:2]
    (tmp_path / "two.txt").write_text("\n".join(wnids))
    words = ["subset", tmp_path / "two.txt", "--to", tmp_path / "two", "--root"]
    done = run(*words, small)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(resize 40 q80)") == 2
    with open_manifest(tmp_path / "two" / "manifest.db") as manifest:
        held = manifest.splits()[Split.TRAIN, Layout.IMAGEFOLDER]
        changes = {sample.change for label in (0, 1) for sample in manifest.samples(held, label)}
    assert (held.change, changes) == ("resize 40 q80", {"resized 40 q80"})
    told = receipt_of(tmp_path / "two")["splits"]["train"]
    assert isinstance(told, dict) and told["change"] == "resize 40 q80"
    verified = run("verify", "--root", tmp_path / "two", "--digests")
    assert "the train images are not as published: resize 40 q80" in verified.stderr
    whole = ["--root", tmp_path / "whole", "--dataset", drawn, "--archives", drawn.parent]
    assert run("organize", *whole).returncode == 0
    refused = run(*words, tmp_path / "whole")
    assert (refused.returncode, run(*words, small).returncode) == (1, 0)
    assert "holds other images: resize 40 q80" in refused.stderr


def test_shards_of_smaller_images_that_lack_their_name_never_pass_for_published_ones(
    drawn: Path, tmp_path: Path, run: Run
) -> None:
    words = ["organize", "--root", tmp_path, "--split", "train"]
    archives = ["--dataset", drawn, "--archives", drawn.parent]
    assert run(*words, *archives, *SMALLER).returncode == 0
    receipt = (tmp_path / "receipt.json").read_text()
    (tmp_path / "receipt.json").write_text("[")
    assert run(*words, "--layout", "webdataset").returncode == 1
    (tmp_path / "receipt.json").write_text(receipt)
    growing = tmp_path / ".organizing/shards/train"
    (tmp_path / "shards/train").rename(growing)  # as if it were killed before the name
    (tmp_path / "train").rename(tmp_path / "train.old")
    done = run(*words, *archives, "--layout", "webdataset")
    assert done.returncode == 0, done.stderr
    index = tmp_path / "shards/train/index.json"
    assert '"change": null' in index.read_text()
    verify = ["verify", "--root", tmp_path, "--split", "train"]
    assert run(*verify, "--digests").returncode == 0
    index.write_text(index.read_text().replace("null", '"resize 40 q80"', 1))
    done = run(*verify)
    assert done.returncode == 5
    assert "index.json says resize 40 q80, and the manifest images as published" in done.stdout
