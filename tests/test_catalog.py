"""What the catalog says about ilsvrc2012, counted again, and datasets of one's own."""

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import BUILT_IN, Split, load_dataset
from imnetprep.catalog.subsets import read_list, subset_of
from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.sources.torrent import parse_magnet, read_torrent
from tests.conftest import DATASETS

ILSVRC2012 = load_dataset("ilsvrc2012")


def test_every_count_adds_up() -> None:
    train, val = ILSVRC2012.counts(Split.TRAIN), ILSVRC2012.counts(Split.VAL)
    assert len(ILSVRC2012.synsets) == len(train) == len(val) == 1000
    assert sum(train) == ILSVRC2012.samples(Split.TRAIN) == 1_281_167
    assert sum(val) == ILSVRC2012.samples(Split.VAL) == 50_000
    assert (min(train), max(train), train.count(1300)) == (732, 1300, 895)
    assert set(val) == {50}


def test_the_train_list_is_the_published_one() -> None:
    """The MD5 of Caffe's train.txt and val.txt, made again from the catalog."""
    train = hashlib.md5()
    for synset in ILSVRC2012.synsets:
        names = sorted(ILSVRC2012.names(Split.TRAIN, synset.label) or ())
        for name in names:
            train.update(f"{synset.wnid}/{name} {synset.label}\n".encode())
    assert train.hexdigest() == "3be8e5d8cbd932cc295ec175d5110921"
    labels = {
        name: synset.label
        for synset in ILSVRC2012.synsets
        for name in ILSVRC2012.names(Split.VAL, synset.label) or ()
    }
    val = "".join(f"{name} {labels[name]}\n" for name in sorted(labels))
    assert hashlib.md5(val.encode()).hexdigest() == "b6284a7c08fba47457c2c1f6049a156e"


def test_label_and_ilsvrc_id_are_kept_apart() -> None:
    wnids = [synset.wnid for synset in ILSVRC2012.synsets]
    assert wnids == sorted(set(wnids))
    assert [synset.label for synset in ILSVRC2012.synsets] == list(range(1000))
    assert sorted(synset.ilsvrc_id or 0 for synset in ILSVRC2012.synsets) == list(range(1, 1001))
    tench = ILSVRC2012.synsets[0]
    assert (tench.wnid, tench.label, tench.ilsvrc_id) == ("n01440764", 0, 449)


@pytest.mark.parametrize("split", [Split.TRAIN, Split.VAL])
def test_torrent_magnet_and_archive_are_the_same_file(split: Split) -> None:
    archive = ILSVRC2012.archive(split)
    assert archive.torrent is not None and archive.magnet is not None
    torrent = read_torrent(ILSVRC2012.read(archive.torrent))
    assert torrent.info_hash == parse_magnet(archive.magnet).v1
    (file,) = torrent.files
    assert (file.name, file.size_bytes) == (archive.name, archive.size_bytes)
    assert torrent.info.num_pieces() == {Split.TRAIN: 70_524, Split.VAL: 3_217}[split]


def test_a_name_gives_its_label_or_none() -> None:
    label_of = ILSVRC2012.label_of
    assert label_of(Split.TRAIN, "n01440764_10026.JPEG") == 0
    assert label_of(Split.TRAIN, "n01440764_010026.JPEG") is None
    assert label_of(Split.TRAIN, "n01440764_1.JPEG") is None
    assert label_of(Split.TRAIN, "n02487347_1956.JPEG") is None, "not in ILSVRC2012, often listed"
    assert label_of(Split.VAL, "ILSVRC2012_val_00000001.JPEG") == 65
    assert label_of(Split.VAL, "ILSVRC2012_val_1.JPEG") is None
    assert label_of(Split.VAL, "ILSVRC2012_val_00050001.JPEG") is None


def test_the_odd_files_are_of_the_dataset() -> None:
    odd = ILSVRC2012.table["odd_files"]
    assert (len(odd["png"]), len(odd["cmyk"])) == (1, 23)
    for names in odd.values():
        for name in names:
            split = Split.VAL if "_val_" in name else Split.TRAIN
            assert ILSVRC2012.label_of(split, name) is not None, name


def test_no_validation_image_of_tiny10_has_its_ilsvrc2012_label() -> None:
    tiny = load_dataset(str(DATASETS / "tiny10.toml"))
    for synset in tiny.synsets:
        for name in tiny.names(Split.VAL, synset.label) or ():
            label = ILSVRC2012.label_of(Split.VAL, name)
            assert label is not None
            assert ILSVRC2012.synsets[label].wnid != synset.wnid


def test_a_dataset_nobody_knows_is_wrong_usage() -> None:
    with pytest.raises(WrongUsage, match="no dataset is called 'imagenet22k'"):
        load_dataset("imagenet22k")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('name = "tiny10"', "", "'name' is missing"),
        ('form = "tar"', 'form = "rar"', "'rar'"),
        ('synsets = "', 'synsets = "../', "not a plain file name"),
        ("[val]", "[val", "definition"),
        ('names = "tiny10_val_names.txt"', "", "val needs names"),
    ],
)
def test_a_bad_definition_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    shutil.copytree(DATASETS, tmp_path, dirs_exist_ok=True)
    toml = tmp_path / "tiny10.toml"
    toml.write_text(toml.read_text().replace(old, new, 1))
    with pytest.raises(ImnetprepError, match=told):
        load_dataset(str(toml))


def test_names_that_are_not_the_synsets_are_refused(tmp_path: Path) -> None:
    shutil.copytree(DATASETS, tmp_path, dirs_exist_ok=True)
    names = tmp_path / "tiny10_val_names.txt"
    names.write_text("".join(names.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(ImnetprepError, match="not the 10 classes in order"):
        load_dataset(str(tmp_path / "tiny10.toml")).counts(Split.VAL)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_dataset_counts_up(name: str) -> None:
    dataset = load_dataset(name)
    for split in dataset.splits:
        assert sum(dataset.counts(split)) == dataset.samples(split)
        for synset in dataset.synsets[:3]:
            names = list(dataset.names(split, synset.label) or ())
            assert len(set(names)) == len(names)
            assert all(dataset.label_of(split, one) == synset.label for one in names)
        for packaging in dataset.packagings:
            assert dataset.archives_of(split, packaging)


def test_imagenette_has_images_of_both_splits_of_ilsvrc2012_in_each_of_its_own() -> None:
    nette = load_dataset("imagenette-320")
    assert nette.label_of(Split.TRAIN, "ILSVRC2012_val_00000293.JPEG") == 0
    assert nette.label_of(Split.VAL, "ILSVRC2012_val_00000293.JPEG") is None
    for split in nette.splits:
        for synset in nette.synsets:
            for name in nette.names(split, synset.label) or ():
                of = Split.VAL if "_val_" in name else Split.TRAIN
                label = ILSVRC2012.label_of(of, name)
                assert label is not None and ILSVRC2012.synsets[label].wnid == synset.wnid, name


def test_a_subset_of_a_dataset_with_two_patterns_has_its_names(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("n01440764\nn02102040\n")
    nette = load_dataset("imagenette")
    two = subset_of(nette, read_list(str(tmp_path / "list.txt")))
    assert list(two.names(Split.TRAIN, 1) or ()) == list(nette.names(Split.TRAIN, 1) or ())
    assert two.label_of(Split.TRAIN, "ILSVRC2012_val_00000293.JPEG") == 0


def test_a_split_without_any_file_name_is_refused(tmp_path: Path) -> None:
    for file in DATASETS.glob("tiny10*"):
        text = file.read_text()
        (tmp_path / file.name).write_text(re.sub("(?m)^file_name = .*", "file_name = []", text))
    with pytest.raises(ImnetprepError, match="no file_name is given"):
        load_dataset(str(tmp_path / "tiny10.toml"))
