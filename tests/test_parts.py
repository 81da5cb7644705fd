"""The root of a subset knows what it is part of: the archives of that serve it later, too."""

import json
import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import DEFINITION, Split, load_dataset
from imnetprep.catalog.subsets import read_list, subset_of
from imnetprep.manifest import create_manifest, dataset_for
from imnetprep.sources.torrent import published_pieces
from imnetprep.synthetic import pack_dataset
from tests.conftest import TRAIN, VAL, Run, receipt_of, spoil, tree

# Of five: labels 1 and 3 there, 0 and 1 here.
CLASSES = ["n01443537", "n01491361"]


@pytest.fixture(scope="module")
def unproved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose archives nothing proves."""
    toml = pack_dataset(tmp_path_factory.mktemp("unproved"), classes=5, train_per_class=4)
    lines = [line for line in toml.read_text().splitlines() if not line.startswith("md5")]
    toml.write_text("\n".join(lines))
    return toml


def _subset(toml: Path, folder: Path, here: Run, *names: str) -> Path:
    """The root of what `names` choose, or the two classes, of the archives beside `toml`."""
    listed = folder / "mine.txt"
    listed.write_text("\n".join(names or CLASSES))
    words = ["--archives", toml.parent, "--dataset", toml, "--to", folder / "part"]
    done = here("subset", listed, *words)
    assert done.returncode == 0, done.stderr
    return folder / "part"


def _splits(root: Path) -> dict[str, bytes]:
    return {f"{each}/{name}": body for each in Split for name, body in tree(root / each).items()}


def _images(root: Path, layout: str) -> list[bytes]:
    """The train images, as they lie in class folders or in shards."""
    if layout == "imagefolder":
        return list(tree(root / "train").values())
    found = []
    for path in (root / "shards" / "train").glob("*.tar"):
        with tarfile.open(path) as shard:
            images = [each for each in shard if not each.name.endswith((".cls", ".json"))]
            found += [shard.extractfile(each).read() for each in images]  # type: ignore[union-attr]
    return found


def _damage(root: Path) -> None:
    """An image lost and one spoiled, in either split."""
    for split in ("train", "val"):
        lost, spoiled = sorted((root / split).glob("*/*"))[1:3]
        lost.unlink()
        spoil(spoiled, 500)


@pytest.mark.parametrize("files", [False, True])
def test_it_is_mended_from_the_archives_of_the_whole(
    files: bool, published: Path, tmp_path: Path, here: Run
) -> None:
    whole = load_dataset(str(published))
    names = [name for label in (1, 3) for name in list(whole.names(Split.TRAIN, label) or ())[2:5]]
    root = _subset(published, tmp_path, here, *names * files)
    before = _splits(root)
    _damage(root)
    assert here("verify", "--root", root, "--digests").returncode == 5
    done = here("repair", "--root", root, "--from", published.parent, "--digests")
    assert done.returncode == 0, done.stdout + done.stderr
    train, val = done.stdout.splitlines()
    assert "2 taken from the archive (verified by the manifest's digests, the torrent's" in train
    assert "2 taken from the archive (verified by the manifest's digests)" in val
    assert _splits(root) == before
    assert here("verify", "--root", root, "--digests").returncode == 0


def test_part_of_a_part_is_mended_from_them_too(
    organized_once: Path, packed: Path, tmp_path: Path, here: Run
) -> None:
    once, twice, root = tmp_path / "once.txt", tmp_path / "twice.txt", tmp_path / "twice"
    once.write_text("\n".join(CLASSES))
    twice.write_text(CLASSES[1])
    assert here("subset", once, "--root", organized_once, "--to", tmp_path / "o").returncode == 0
    words = ["subset", twice, "--root", tmp_path / "o", "--to", root]
    done = here(*words, "--copy")
    assert done.returncode == 0, done.stderr
    before = _splits(root)
    _damage(root)
    assert here("repair", "--root", root, "--from", packed.parent, "--digests").returncode == 0
    assert _splits(root) == before
    assert here(*words).stdout == done.stdout  # by the manifest, and by the list: the same dataset


@pytest.mark.parametrize("layout", ["imagefolder", "webdataset"])
@pytest.mark.parametrize("kind", ["torrent", "none"])
def test_what_is_missing_is_organized_from_the_archives_of_the_whole(
    kind: str, layout: str, published: Path, unproved: Path, tmp_path: Path, here: Run
) -> None:
    toml = published if kind == "torrent" else unproved
    root = _subset(toml, tmp_path, here)
    before = _images(root, "imagefolder")
    shutil.rmtree(root / "train")
    words = ["organize", "--root", root, "--split", "train", "--layout", layout]
    done = here(*words)
    assert done.returncode == 1
    told = f"{root}/archives/{TRAIN} is not there; packed-mine is part of packed"
    assert told in done.stderr and " with --archives" in done.stderr
    done = here(*words, "--archives", toml.parent)
    assert done.returncode == 0, done.stderr
    assert here("verify", *words[1:], "--digests").returncode == 0
    made = receipt_of(root)["splits"]["train" if layout == "imagefolder" else "shards/train"]
    assert f'"kind": "{kind}"' in json.dumps(made)
    assert sorted(_images(root, layout)) == sorted(before)


@pytest.mark.parametrize("layout", ["imagefolder", "webdataset"])
def test_no_archive_of_the_whole_is_given_up_for_a_part(
    layout: str, published: Path, tmp_path: Path, here: Run
) -> None:
    root = _subset(published, tmp_path, here)
    folder = tmp_path / "archives"
    folder.mkdir()
    for name in (TRAIN, VAL):
        shutil.copy(published.parent / name, folder)
    before = tree(folder)
    for split in ("train", "val"):
        shutil.rmtree(root / split)
        words = ["--split", split, "--archives", folder, "--layout", layout, "--consume"]
        done = here("organize", "--root", root, *words)
        assert done.returncode == 2
        assert "packed-mine is part of packed: --consume would delete all of" in done.stderr
    assert tree(folder) == before


def test_the_archives_beside_it_are_judged_as_those_of_the_whole(
    published: Path, unproved: Path, tmp_path: Path, here: Run
) -> None:
    (tmp_path / "other").mkdir()
    root, other = _subset(published, tmp_path, here), _subset(unproved, tmp_path / "other", here)
    for each, toml in ((root, published), (other, unproved)):
        shutil.copytree(toml.parent, each / "archives")
        done = here("verify-archives", "--root", each)
        assert done.returncode == 0, done.stdout
    spoil(root / "archives" / TRAIN, 70_000)
    done = here("verify-archives", "--root", root)
    assert done.returncode == 5
    assert "bytes 65,536 to 131,072 (1 piece)" in done.stdout
    done = here("repair-archives", "--root", root, "--from", published.parent)
    assert done.returncode == 0, done.stderr
    assert (root / "archives" / TRAIN).read_bytes() == (published.parent / TRAIN).read_bytes()


def test_status_and_download_know_of_what_it_is_part(
    published: Path, tmp_path: Path, here: Run
) -> None:
    root = _subset(published, tmp_path, here)
    assert ", subset mine (part of packed)\n" in here("status", "--root", root).stdout
    dataset = json.loads(here("status", "--root", root, "--json").stdout.splitlines()[0])
    assert (dataset["name"], dataset["part_of"]) == ("packed-mine", "packed")
    words = ["download", "--root", root, "--split", "train", "--dry-run"]
    assert f"{TRAIN}: to fetch" in here(*words).stdout


def test_part_of_a_built_in_dataset_names_it_and_keeps_no_copy(tmp_path: Path, here: Run) -> None:
    chosen = subset_of(load_dataset("ilsvrc2012"), read_list("imagenette"))
    create_manifest(tmp_path / "manifest.db", chosen)
    held = dataset_for(tmp_path / "manifest.db", None)
    assert held.fingerprint == chosen.fingerprint
    assert not [name for name in held.definition() if "/" in name or "torrent" in name]
    pieces = published_pieces(held, held.archive(Split.TRAIN))
    assert held.published.name == "ilsvrc2012" and pieces and pieces.count == 70_524
    done = here("organize", "--root", tmp_path, "--split", "val")
    assert "ilsvrc2012-imagenette is part of ilsvrc2012, and made of its archives" in done.stderr


def _redefine(root: Path, file: str, old: str, new: str) -> None:
    with closing(sqlite3.connect(root / "manifest.db")) as database:
        (body,) = database.execute("SELECT body FROM definition WHERE file = ?", [file]).fetchone()
        assert old in body.decode()
        changed = body.decode().replace(old, new).encode()
        database.execute("UPDATE definition SET body = ? WHERE file = ?", [changed, file])
        database.commit()


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        (DEFINITION, '"whole"', '"../whole"', "neither built in nor a plain folder name"),
        (DEFINITION, '"whole"', '"nobody"', "lacks nobody/dataset.toml"),
        (DEFINITION, '"whole"', '"x/whole"', "neither built in nor a plain folder name"),
        (DEFINITION, '"whole"', "7", "does not hold"),
        (DEFINITION, '"whole"', '["whole"]', "does not hold"),
        (f"whole/{DEFINITION}", "name =", 'part_of = "whole"\nname =', "part of another"),
        (f"whole/{DEFINITION}", "name =", 'part_of = "cifar10"\nname =', "part of another"),
        (f"whole/{DEFINITION}", "[val]", "[test]", "packed, of which it is part, has no val split"),
        (f"whole/{DEFINITION}", '"synsets.tsv"', '"../synsets.tsv"', "not a plain file name"),
        (f"whole/{DEFINITION}", '"synsets.tsv"', '"s.tsv"', "lacks whole/s.tsv"),
    ],
)
def test_a_manifest_that_lies_about_it_is_refused(
    file: str, old: str, new: str, told: str, packed: Path, tmp_path: Path, here: Run
) -> None:
    root = _subset(packed, tmp_path, here)
    shutil.rmtree(root / "train")
    _redefine(root, file, old, new)
    done = here("organize", "--root", root, "--archives", packed.parent)
    assert done.returncode == 1, done.stderr
    assert told in done.stderr
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["Error", "Hint"]
    assert not (root / "train").exists()


def test_another_whole_than_it_was_made_of_serves_nothing(
    packed: Path, tmp_path: Path, here: Run
) -> None:
    root = _subset(packed, tmp_path, here)
    _damage(root)
    before = _splits(root)
    _redefine(root, DEFINITION, '"whole"', '"ilsvrc2012"')
    done = here("repair", "--root", root, "--from", packed.parent, "--digests")
    assert done.returncode == 5
    assert "0 taken from the archive" in done.stdout and not done.stderr
    assert _splits(root) == before
