"""Archives that somebody packed again: taken where names and counts say what they are, or told."""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imnetprep.catalog.datasets import Dataset, load_dataset
from imnetprep.catalog.member_paths import MemberPaths
from tests.conftest import TRAIN, VAL, Run, receipt_of, tree
from tests.packings import Files, picture, write_dataset, write_tar, write_zip
from tests.servers import web_served

APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(80)
Change = Callable[[Files], Files]


@pytest.fixture
def unproved(packed: Path, tmp_path: Path) -> Path:
    """The definition of `packed` without sizes and digests, its archives beside it."""
    toml = Path(shutil.copytree(packed.parent, tmp_path / "archives")) / packed.name
    lines = toml.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("size_bytes", "md5"))]
    toml.write_text("\n".join(kept))
    return toml


def _unpacked(body: bytes) -> Files:
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]


def _tar_of(files: Files) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return file.getvalue()


def _pack_again(archive: Path, change: Change) -> None:
    """`change` the members of the archive, and those of the tars in it."""
    files = _unpacked(archive.read_bytes())
    for name in [name for name in files if name.endswith(".tar")]:
        files[name] = _tar_of(change(_unpacked(files[name])))
    archive.write_bytes(_tar_of(change(files)))


def _by_a_mac(files: Files) -> Files:
    pairs = [{f"._{name}": APPLE_DOUBLE, name: body} for name, body in files.items()]
    changed: Files = {".DS_Store": b"\0\0\0\1Bud1"}
    for pair in pairs:
        changed |= pair
    return {**changed, "__MACOSX/._x": APPLE_DOUBLE}


def _in_a_folder(files: Files) -> Files:
    return {f"./packed again/{name}": body for name, body in files.items()}


@pytest.mark.parametrize("change", [_by_a_mac, _in_a_folder])
@pytest.mark.parametrize("way", ["by range", "in order", "shards"])
def test_tars_packed_again_make_the_same(
    way: str, change: Change, unproved: Path, organized_once: Path, tmp_path: Path, here: Run
) -> None:
    root, place = tmp_path / "root", unproved.parent
    for name in (TRAIN, VAL):
        _pack_again(place / name, change)
    words = ["--root", root, "--dataset", unproved, "--archives", place]
    if way == "in order":
        for name, split in ((TRAIN, "train"), (VAL, "val")):
            (place / name).rename(place / "piped")
            shutil.copy(place / "piped", place / name)
            with (place / name).open("rb") as pipe, pytest.MonkeyPatch.context() as patch:
                patch.setattr("sys.stdin", io.TextIOWrapper(pipe))
                done = here("organize", *words[:-1], "-", "--split", split)
                assert done.returncode == 0, done.stderr
    else:
        done = here("organize", *words, *(["--layout", "webdataset"] if way == "shards" else []))
        assert done.returncode == 0, done.stderr
    if way != "shards":
        for split in ("train", "val"):
            assert tree(root / split) == tree(organized_once / split)
    assert here("verify", "--root", root, "--digests").returncode == 0


@pytest.mark.parametrize("change", [_by_a_mac, _in_a_folder])
def test_tars_packed_again_are_verified_and_repair_from_them(
    change: Change, unproved: Path, organized: Path, here: Run
) -> None:
    for name in (TRAIN, VAL):
        _pack_again(unproved.parent / name, change)
    done = here("verify-archives", "--dataset", unproved, "--archives", unproved.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    before = tree(organized / "train")
    for split in ("train", "val"):
        next((organized / split).rglob("*.JPEG")).unlink()
    done = here("repair", "--root", organized, "--from", unproved.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tree(organized / "train") == before
    assert here("verify", "--root", organized, "--digests").returncode == 0


def test_a_published_archive_that_others_packed_again_is_refused_with_the_way_to_take_it(
    packed: Path, organized_once: Path, tmp_path: Path, here: Run
) -> None:
    """Its size is not the published one, and no digest is of it: as damaged, for all one knows."""
    for name in (TRAIN, VAL):
        shutil.copy(packed.parent / name, tmp_path)
        _pack_again(tmp_path / name, lambda files: {**files, ".DS_Store": bytes(20_000)})
    words = ["--root", tmp_path / "root", "--dataset", packed, "--archives", tmp_path]
    done = here("organize", *words, "--split", "train")
    assert (done.returncode, "nothing verifies these" in done.stderr) == (4, True)
    assert "--archives takes the folder of class tars, by names and counts" in done.stderr
    done = here("organize", *words, "--split", "val")
    assert (done.returncode, "nothing verifies these" in done.stderr) == (4, True)
    assert "unpack it to DIR/SPLIT" in done.stderr
    (tmp_path / "dir" / "val").mkdir(parents=True)
    for name, body in _unpacked((tmp_path / VAL).read_bytes()).items():
        if not name.startswith("."):
            (tmp_path / "dir" / "val" / name).write_bytes(body)
    for verb in (["repair", "--root", tmp_path / "dir"], ["adopt", tmp_path / "dir"]):
        done = here(*verb, "--dataset", packed, "--split", "val")
        assert done.returncode == 0, done.stdout + done.stderr
    assert tree(tmp_path / "dir" / "val") == tree(organized_once / "val")


def test_an_image_in_two_folders_of_a_tar_is_refused(
    unproved: Path, tmp_path: Path, here: Run
) -> None:
    _pack_again(unproved.parent / VAL, lambda files: {**files, f"again/{min(files)}": b"other"})
    words = ["--root", tmp_path / "root", "--dataset", unproved, "--archives", unproved.parent]
    done = here("organize", *words, "--split", "val")
    assert done.returncode == 4
    assert "a second time" in done.stderr


def test_an_archive_that_is_not_there_is_told_with_what_is(
    unproved: Path, tmp_path: Path, here: Run
) -> None:
    (unproved.parent / TRAIN).rename(unproved.parent / "train images.tar.bz2")
    place = ["--dataset", unproved, "--archives", unproved.parent, "--split", "train"]
    told = f"{TRAIN} is not there, but {VAL}, train images.tar.bz2"
    for words in (["organize", "--root", tmp_path / "root"], ["verify-archives"]):
        done = here(*words, *place)
        assert done.returncode == 1
        assert told in done.stderr
    done = here("adopt", unproved.parent)
    assert f"holds no images, but {VAL}, train images.tar.bz2" in done.stderr


def test_a_train_tar_of_images_says_that_class_tars_are_looked_for(
    unproved: Path, tmp_path: Path, here: Run
) -> None:
    shutil.copy(unproved.parent / VAL, unproved.parent / TRAIN)
    words = ["--root", tmp_path / "root", "--dataset", unproved, "--archives", unproved.parent]
    done = here("organize", *words, "--split", "train")
    assert done.returncode == 4
    assert ".JPEG', where packed has 'n" in done.stderr and ".tar'" in done.stderr


# The tars that were in the train archive, without it.


def _class_tars(toml: Path, *, by: str = "train") -> Path:
    """The folder where they are; the archive that they were in is gone."""
    folder = toml.parent / by
    folder.mkdir()
    for name, body in _unpacked((toml.parent / TRAIN).read_bytes()).items():
        (folder / name).write_bytes(body)
    (toml.parent / TRAIN).unlink()
    return folder


@pytest.mark.parametrize("layout", ["imagefolder", "webdataset"])
def test_class_tars_are_read_as_the_archive_they_were_in(
    layout: str, unproved: Path, organized_once: Path, tmp_path: Path, here: Run
) -> None:
    folder, root = _class_tars(unproved), tmp_path / "root"
    shutil.move(unproved.parent / VAL, folder)
    words = ["--root", root, "--dataset", unproved, "--archives", folder, "--layout", layout]
    done = here("organize", *words)
    assert done.returncode == 0, done.stderr
    if layout == "imagefolder":
        assert tree(root / "train") == tree(organized_once / "train")
    assert here("verify", "--root", root, "--digests").returncode == 0
    receipt = receipt_of(root)["splits"]
    of_train = receipt[min(receipt)]
    assert of_train["archive"] == f"the class tars of {TRAIN}"  # type: ignore[index]
    assert "nobody vouches" in str(of_train["proof"])  # type: ignore[index]
    assert not receipt_of(root)["archives"]


def test_organizing_class_tars_goes_on_until_one_of_them_changes(
    unproved: Path, tmp_path: Path, here: Run
) -> None:
    folder, root = _class_tars(unproved), tmp_path / "root"
    last = max(folder.iterdir())
    right = last.read_bytes()
    last.write_bytes(right[: len(right) // 2])
    words = ["--root", root, "--dataset", unproved, "--archives", folder, "--split", "train"]
    done = here("organize", *words, "--jobs", 1)
    assert done.returncode == 4
    assert f"the class tars of {TRAIN}: {last.name} is truncated" in done.stderr
    last.write_bytes(right)
    assert here("organize", *words).returncode == 0
    assert here("verify", "--root", root, "--split", "train", "--digests").returncode == 0


def test_class_tars_that_are_missing_are_named(unproved: Path, tmp_path: Path, here: Run) -> None:
    folder = _class_tars(unproved)
    first = min(folder.iterdir())
    first.unlink()
    words = ["--root", tmp_path / "root", "--dataset", unproved, "--archives"]
    done = here("organize", *words, folder, "--split", "train")
    assert done.returncode == 1
    assert f"{folder} has 4 of the 5 class tars of {TRAIN}; missing: {first.name}" in done.stderr
    other = max(folder.iterdir())
    done = here("organize", *words, other, "--split", "train")
    assert done.returncode == 1
    assert f"{other} is a class tar, one of 5 in {TRAIN}" in done.stderr
    done = here("organize", *words, folder, "--split", "train", "--consume")
    assert done.returncode != 0 and other.exists()


def test_class_tars_where_class_folders_belong_are_called_so(
    unproved: Path, tmp_path: Path, here: Run
) -> None:
    folder = _class_tars(unproved)
    words = ["--root", unproved.parent, "--dataset", unproved, "--split", "train"]
    done = here("verify", *words)
    assert done.returncode == 5
    assert done.stdout.count("class-tar: train/n") == 5
    assert here("repair", *words, "--delete").returncode != 0
    assert len(list(folder.iterdir())) == 5
    done = here("organize", *words)
    assert done.returncode == 1
    assert f"{folder} holds class tars and no class folders" in done.stderr
    command = done.stderr.partition("then imnetprep ")[2].split()
    folder.rename(f"{folder}.old")
    assert here(*command).returncode == 0
    done = here("verify-archives", "--dataset", unproved, "--archives", f"{folder}.old")
    assert done.returncode == 1
    assert "lies in parts that nothing vouches for" in done.stderr


def test_repair_takes_images_from_class_tars(unproved: Path, organized: Path, here: Run) -> None:
    folder, before = _class_tars(unproved), tree(organized / "train")
    next((organized / "train").rglob("*.JPEG")).unlink()
    done = here("repair", "--root", organized, "--from", folder, "--split", "train")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 taken from the archive (verified by the manifest's digests)" in done.stdout
    assert tree(organized / "train") == before


def test_a_choice_of_classes_wants_only_their_tars(
    unproved: Path, tmp_path: Path, here: Run
) -> None:
    folder = _class_tars(unproved)
    chosen = [path.stem for path in sorted(folder.iterdir())[1:3]]
    for path in folder.iterdir():
        if path.stem not in chosen:
            path.unlink()
    (tmp_path / "two.txt").write_text("\n".join(chosen))
    words = ["--dataset", unproved, "--archives", folder, "--split", "train"]
    done = here("subset", tmp_path / "two.txt", "--to", tmp_path / "root", *words)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "root" / "train").iterdir()) == chosen


# The images in class folders, in one tar.


@pytest.mark.parametrize(
    ("name", "top", "mode"),
    [(TRAIN, "train/", "w"), ("train.tar", "", "w"), ("train.tar.gz", "a/ILSVRC/train/", "w:gz")],
)
@pytest.mark.parametrize("layout", ["imagefolder", "webdataset"])
def test_a_tar_of_class_folders_is_read_and_nobody_vouches_for_it(
    layout: str,
    name: str,
    top: str,
    mode: str,
    packed: Path,
    organized_once: Path,
    tmp_path: Path,
    here: Run,
) -> None:
    """The digest of the dataset is of the archive that was published under that name."""
    folder, root, images = tmp_path / "again", tmp_path / "root", tree(organized_once / "train")
    folder.mkdir()
    files = {f"{top}{each}": body for each, body in images.items()}
    write_tar(folder / name, {f"{top}._x.JPEG": APPLE_DOUBLE, **files}, mode=mode)
    words = ["organize", "--root", root, "--dataset", packed, "--archives", folder]
    done = here(*words, "--split", "train", "--layout", layout)
    assert done.returncode == 0, done.stderr
    if layout == "imagefolder":
        assert tree(root / "train") == images
    assert here("verify", "--root", root, "--split", "train", "--digests").returncode == 0
    (record,) = receipt_of(root)["splits"].values()
    assert record["proof"]["kind"] == "none"  # type: ignore[index]


def test_a_tar_of_class_folders_under_a_name_of_its_own_is_named_as_a_file(
    packed: Path, organized_once: Path, tmp_path: Path, here: Run
) -> None:
    images = tree(organized_once / "val")
    path = write_tar(tmp_path / "imagenet (mine).tar", images, mode="w")
    words = ["--root", tmp_path / "root", "--dataset", packed, "--archives", path]
    done = here("organize", *words, "--split", "val")
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "root" / "val") == images
    done = here("organize", *words)
    assert done.returncode == 1
    assert f"{tmp_path / TRAIN} is not there, but {path.name}" in done.stderr


def test_a_flat_tar_that_was_published_with_folders_keeps_its_digest(
    unproved: Path, organized_once: Path, tmp_path: Path, here: Run
) -> None:
    path = unproved.parent / VAL
    write_tar(path, tree(organized_once / "val"), mode="w")
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    name = f'name = "{VAL}"\n'
    unproved.write_text(unproved.read_text().replace(name, f'{name}md5 = "{md5}"\n'))
    words = ["--root", tmp_path / "root", "--dataset", unproved, "--archives", path.parent]
    done = here("organize", *words, "--split", "val")
    assert done.returncode == 0, done.stderr
    record: Any = receipt_of(tmp_path / "root")["splits"]["val"]
    assert record["proof"] == {"kind": "md5", "digest": md5}


def test_consume_says_which_archives_of_any_packaging_stay(tmp_path: Path, here: Run) -> None:
    """The splits are organized already; what lies there is another packaging of them."""
    words, _ = _ponds(tmp_path, "tar.gz", lambda files: files)
    assert here(*words).returncode == 0
    toml = tmp_path / "mine.toml"
    kaggle = PONDS[PONDS.index("[[archives]]") :].replace("FORM", "zip").replace(".archive", ".zip")
    (tmp_path / "ponds.zip").write_bytes(b"of another packaging")
    toml.write_text(f'{toml.read_text()}\n{kaggle}packaging = "zip"\n')
    shutil.rmtree(tmp_path / "root")
    assert here(*words).returncode == 0
    done = here(*words, "--consume")
    assert done.returncode == 0, done.stderr
    for name in ("ponds.archive", "ponds.zip"):
        assert f"{name} stays: its images are organized already" in done.stderr


# Archives whose members have paths: under other folders than the definition says.

CLASSES = ("n01614925", "n02123045")
PONDS = """
name = "ponds"
synsets = "synsets.tsv"
[train]
file_name = "{wnid}_{number}.JPEG"
samples = 4
names = "train.txt"
[val]
file_name = "pond_{number:04}.JPEG"
samples = 2
names = "val.txt"
[[archives]]
name = "ponds.archive"
form = "FORM"
members.train = "ponds/v2/train/{wnid}/{wnid}_{number}.JPEG"
members.val = "ponds/v2/val/pond_{number:04}.JPEG"
beside = ["ponds/v2/train/*_boxes.txt"]
"""
WRITERS = {
    "zip": write_zip,
    "tar": lambda path, files: write_tar(path, files, mode="w"),
    "tar.gz": write_tar,
}


def _ponds(folder: Path, form: str, change: Change) -> tuple[list[object], Files]:
    """The words that organize it, and the trees that it should make."""
    names = "".join(f"{wnid} {3 + at} 5\n" for at, wnid in enumerate(CLASSES))
    val = f"{CLASSES[0]} 2\n{CLASSES[1]} 1\n"
    lists = [("synsets.tsv", "wnid\n" + "\n".join(CLASSES) + "\n")]
    lists += [("train.txt", names), ("val.txt", val)]
    toml = write_dataset(folder, PONDS.replace("FORM", form), lists)
    files: Files = {"ponds/README": b"read me", "ponds/v2/val/.DS_Store": b"x"}
    wanted: Files = {}
    for at, wnid in enumerate(CLASSES):
        files[f"ponds/v2/train/{wnid}/{wnid}_boxes.txt"] = b"0 0 9 9"
        for number in (3 + at, 8 + at):
            name = f"{wnid}_{number}.JPEG"
            files[f"ponds/v2/train/{wnid}/{name}"] = wanted[f"train/{wnid}/{name}"] = picture(name)
        name = f"pond_{2 - at:04}.JPEG"
        files[f"ponds/v2/val/{name}"] = wanted[f"val/{wnid}/{name}"] = picture(name)
    WRITERS[form](folder / "ponds.archive", change(files))
    words = ["organize", "--root", folder / "root", "--dataset", toml, "--archives", folder]
    return words, wanted


def _under(top: str) -> Change:
    return lambda files: {name.replace("ponds/v2/", top, 1): body for name, body in files.items()}


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize(
    "top", ["", "./", "v2/", "ponds/v2/", "data/ponds/v2/", "a/b/c/", "train/"]
)
def test_other_folders_on_top_are_found(form: str, top: str, tmp_path: Path, here: Run) -> None:
    words, wanted = _ponds(tmp_path, form, _under(top))
    done = here(*words)
    assert done.returncode == 0, done.stderr
    ours = tree(tmp_path / "root")
    assert {name: body for name, body in ours.items() if name.endswith(".JPEG")} == wanted
    assert here("verify", "--root", tmp_path / "root", "--digests").returncode == 0


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("indexed", [False, True])
def test_other_folders_on_top_are_found_from_afar(
    form: str, indexed: bool, tmp_path: Path, here: Run
) -> None:
    """Also where an index says where the ranges are, so that no header need be walked."""
    words, wanted = _ponds(tmp_path / "served", form, _under("again/"))
    archive = tmp_path / "served" / "ponds.archive"
    if indexed:
        size_bytes = archive.stat().st_size
        index = {"archive": archive.name, "size_bytes": size_bytes, "proof": None, "inode": None}
        ranges = [[0, size_bytes - 1024, None]]
        text = json.dumps({**index, "root": None, "ranges": ranges})
        archive.with_name(f"{archive.name}.index.json").write_text(text)
    with web_served(archive.parent) as web:
        done = here(*words[:-1], web.address)
    assert done.returncode == 0, done.stderr
    ours = tree(archive.parent / "root")
    assert {name: body for name, body in ours.items() if name.endswith(".JPEG")} == wanted


def test_backslashes_of_a_zip_are_folders(tmp_path: Path, here: Run) -> None:
    def change(files: Files) -> Files:
        return {name.replace("/", "\\"): body for name, body in _under("v3/")(files).items()}

    words, wanted = _ponds(tmp_path, "zip", change)
    done = here(*words)
    assert done.returncode == 0, done.stderr
    assert {f"val/{name}" for name in tree(tmp_path / "root" / "val")} < wanted.keys()


def _split_up(files: Files) -> Files:
    """One class is under another top than the other."""
    return {
        name.replace("ponds/v2", "left" if CLASSES[0] in name else "right"): body
        for name, body in files.items()
    }


def _copied(files: Files) -> Files:
    return {**_under("copy/")(files), **_under("another/")(files)}


def _one_folder_more_below(files: Files) -> Files:
    return {name.replace("_", "/_", 1): body for name, body in files.items()}


def _none(files: Files) -> Files:
    return {"readme.txt": b"moved to another place"}


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_split_up, "beside images in left/"),
        (_copied, "beside images in copy/"),
        (_none, "it has 'readme.txt'; ponds has 'ponds/v2/train/n01614925/n01614925_3.JPEG'"),
        (_one_folder_more_below, "where ponds has 'ponds/v2/train/n01614925/n01614925_3.JPEG'"),
    ],
)
def test_what_is_under_no_one_folder_is_told_by_a_path_of_each(
    form: str, change: Change, told: str, tmp_path: Path, here: Run
) -> None:
    words, _ = _ponds(tmp_path, form, change)
    done = here(*words)
    assert done.returncode == 4, done.stderr
    assert told in done.stderr
    assert done.stderr.count("\n") == 2, "one error, one hint"
    assert not (tmp_path / "root" / "train").exists()


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_images_as_published_go_before_a_copy(form: str, tmp_path: Path, here: Run) -> None:
    def change(files: Files) -> Files:
        copies = {name: body + b"other" for name, body in _under("thumbnails/")(files).items()}
        return {**copies, **files} if form == "zip" else {**files, **copies}

    words, wanted = _ponds(tmp_path, form, change)
    done = here(*words)
    assert done.returncode == 0, done.stderr
    ours = tree(tmp_path / "root")
    assert {name: body for name, body in ours.items() if name.endswith(".JPEG")} == wanted


_TOPS = ["", "ponds/v2/", "ponds/", "v2/", "x/", "x/ponds/v2/", "train/", "../", "a b/"]
_ENDS = [f"train/{wnid}/{wnid}_{number}.JPEG" for wnid in CLASSES for number in (3, 4, 8, 9, 10)]
_ENDS += ["val/pond_0001.JPEG", "val/pond_0002.JPEG", "val/pond_0009.JPEG", "train/x_boxes.txt"]
_ENDS += [f"train/{CLASSES[0]}/{CLASSES[1]}_4.JPEG", "readme", f"train/{CLASSES[0]}/readme"]


@given(
    paths=st.lists(st.tuples(st.sampled_from(_TOPS), st.sampled_from(_ENDS)), max_size=12),
    may_move=st.booleans(),
)
def test_samples_are_of_one_top_and_of_the_dataset(
    paths: list[tuple[str, str]], may_move: bool, ponds: Dataset
) -> None:
    """Whatever lies where, and in any order."""
    members, tops = MemberPaths(ponds.archives[0], ponds), set()
    members.may_move = may_move
    for top, end in paths:
        try:
            place = members.place(f"{top}{end}")
        except ValueError:
            break
        if place is not None:
            wnid = ponds.synsets[place.label].wnid
            names = ponds.names(place.split, place.label)
            assert names is not None and place.name in names
            wanted = f"{place.split}/{wnid}/" if place.split == "train" else f"{place.split}/"
            assert f"{top}{end}".endswith(f"{wanted}{place.name}")
            tops.add(f"{top}{end}".removesuffix(f"{wanted}{place.name}"))
            assert members.has_samples
    assert len(tops) <= 1
    assert may_move or tops <= {"ponds/v2/"}


@pytest.fixture(scope="module")
def ponds(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("ponds")
    _ponds(folder, "tar", lambda files: files)
    return load_dataset(str(folder / "mine.toml"))
