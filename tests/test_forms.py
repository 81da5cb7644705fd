"""Every shape that a dataset is published in becomes the same class folders, or is refused."""

import gzip
import hashlib
import json
import os
import pickle
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from imnetprep.archives.pickles import cifar_images
from imnetprep.catalog.datasets import load_dataset
from imnetprep.messages import WrongBytes
from tests.conftest import Run, command, tree
from tests.packings import Files, cifar_batch, picture, write_dataset, write_tar, write_zip
from tests.servers import web_served

WNIDS = ("n01440764", "n02102040", "n02979186")
SYNSETS = "".join(f"{line}\n" for line in ("wnid", *WNIDS))


# Imagenette: train and val in one tgz, already in folders, train images in val and the reverse.

NETTE = """
name = "nette"
synsets = "synsets.tsv"
[train]
file_name = ["{wnid}_{number}.JPEG", "ILSVRC2012_val_{number:08}.JPEG"]
samples = 9
names = "train_names.txt"
[val]
file_name = ["{wnid}_{number}.JPEG", "ILSVRC2012_val_{number:08}.JPEG"]
samples = 6
names = "val_names.txt"
[[archives]]
name = "nette2.tgz"
form = "tar.gz"
members.train = "nette2/train/{wnid}/{name}"
members.val = "nette2/val/{wnid}/{name}"
"""


def _nette(folder: Path) -> tuple[Path, Files]:
    """The definition, and the files of its archive."""
    files: Files = {"nette2/noisy_nette.csv": b"path,label\n"}
    lists: dict[str, str] = {"train": "", "val": ""}
    for split in ("val", "train"):
        for at, wnid in enumerate(WNIDS):
            numbers = [10 * at + 2, 10 * at + 5] if split == "train" else [10 * at + 3]
            of_val = 100 * at + (7 if split == "train" else 8)
            names = [f"{wnid}_{number}.JPEG" for number in numbers]
            names.append(f"ILSVRC2012_val_{of_val:08}.JPEG")
            keys = sorted([*(2 * number for number in numbers), 2 * of_val + 1])
            steps = [after - before for before, after in zip([0, *keys], keys, strict=False)]
            lists[split] += f"{wnid} {' '.join(map(str, steps))}\n"
            files |= {f"nette2/{split}/{wnid}/{name}": picture(f"{split} {name}") for name in names}
    named = [(f"{split}_names.txt", text) for split, text in lists.items()]
    return write_dataset(folder, NETTE, [("synsets.tsv", SYNSETS), *named]), files


def _samples(files: Files, split: str) -> Files:
    """What of `files` should lie under `split`."""
    prefix = f"nette2/{split}/"
    return {name.removeprefix(prefix): body for name, body in files.items() if prefix in name}


@pytest.mark.parametrize("form", ["tar", "tar.gz", "tar.xz", "zip"])
def test_folders_of_both_splits_in_one_archive(form: str, tmp_path: Path, here: Run) -> None:
    toml, files = _nette(tmp_path / "archives")
    toml.write_text(toml.read_text().replace('form = "tar.gz"', f'form = "{form}"'))
    archive = toml.parent / "nette2.tgz"
    if form == "zip":
        write_zip(archive, files, packed=True)
    else:
        write_tar(archive, files, mode={"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}[form])
    root = tmp_path / "root"
    done = here("organize", "--root", root, "--dataset", toml, "--archives", archive.parent)
    assert done.returncode == 0, done.stderr
    for split in ("train", "val"):
        assert tree(root / split) == _samples(files, split)
    assert here("verify", "--root", root, "--digests").returncode == 0
    receipt = json.loads((root / "receipt.json").read_text())
    assert receipt["splits"]["val"]["archive"] == "nette2.tgz"


def test_one_split_of_a_shared_archive_and_then_the_other(tmp_path: Path, here: Run) -> None:
    toml, files = _nette(tmp_path / "archives")
    archive = write_tar(toml.parent / "nette2.tgz", files)
    words = ["organize", "--root", tmp_path / "root", "--dataset", toml, "--archives", archive]
    assert here(*words, "--split", "val").returncode == 0
    assert not (tmp_path / "root" / "train").exists()
    done = here(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["split"] for line in done.stdout.splitlines()] == ["train", "val"]
    assert tree(tmp_path / "root" / "train") == _samples(files, "train")


def test_a_pipe_serves_both_splits_at_once(tmp_path: Path, run: Run) -> None:
    toml, files = _nette(tmp_path / "archives")
    words = ["--root", tmp_path / "root", "--dataset", toml, "--archives", "-"]
    with write_tar(toml.parent / "nette2.tgz", files).open("rb") as archive:
        done = run("organize", *words, stdin=archive)
    assert done.returncode == 0, done.stderr
    for split in ("train", "val"):
        assert tree(tmp_path / "root" / split) == _samples(files, split)


@pytest.mark.parametrize("form", ["tar.gz", "zip"])
def test_shards_come_straight_from_a_shared_archive_too(
    form: str, tmp_path: Path, here: Run
) -> None:
    toml, files = _nette(tmp_path / "archives")
    toml.write_text(toml.read_text().replace('form = "tar.gz"', f'form = "{form}"'))
    archive = toml.parent / "nette2.tgz"
    write_zip(archive, files) if form == "zip" else write_tar(archive, files)
    shards = ["--layout", "webdataset", "--shard-size", 2]
    made = []
    place = ["--archives", toml.parent]
    for name, ways in (
        ("folders", [place, shards]),
        ("direct", [[*place, *shards], [*place, *shards]]),
    ):
        words = ["organize", "--root", tmp_path / name, "--dataset", toml]
        for way in ways:
            done = here(*words, *way)
            assert done.returncode == 0, done.stderr
        made.append(tree(tmp_path / name / "shards"))
    assert made[0] == made[1]
    assert {name.partition("/")[0] for name in made[0]} == {"train", "val"}
    assert not (tmp_path / "direct" / "train").exists()
    assert not list((tmp_path / "direct" / ".organizing").rglob("*.spool"))


def test_the_digest_of_a_compressed_archive_is_judged(tmp_path: Path, here: Run) -> None:
    toml, files = _nette(tmp_path / "archives")
    archive = write_tar(toml.parent / "nette2.tgz", files)
    right = hashlib.sha256(archive.read_bytes()).hexdigest()
    text = toml.read_text()
    toml.write_text(f'{text}sha256 = "{"0" * 64}"\n')
    words = ["organize", "--root", tmp_path / "root", "--dataset", toml]
    words += ["--archives", toml.parent]
    done = here(*words)
    assert done.returncode == 4
    assert f"sha256 is {right}" in done.stderr
    assert not list((tmp_path / "root" / ".organizing").glob("*/n*"))
    toml.write_text(f'{text}sha256 = "{right}"\n')
    shutil.rmtree(tmp_path / "root")
    assert here(*words).returncode == 0
    receipt = json.loads((tmp_path / "root" / "receipt.json").read_text())
    assert receipt["splits"]["train"]["proof"] == {"kind": "sha256", "digest": right}


Change = Callable[[Files], Files]
TENCH, DOG = WNIDS[:2]


def _moved(old: str, new: str) -> Change:
    return lambda files: {(new if name == old else name): body for name, body in files.items()}


def _added(name: str) -> Change:
    return lambda files: {**files, name: b"x"}


REFUSALS: list[tuple[Change, str]] = [
    (_added(f"nette2/train/{TENCH}/{TENCH}_4.JPEG"), "which nette does not have there"),
    (_added(f"nette2/train/{TENCH}/readme.txt"), "which nette does not have there"),
    (_added("nette2/train/flat.JPEG"), "which nette does not have there"),
    (
        _moved(f"nette2/train/{TENCH}/{TENCH}_2.JPEG", f"nette2/train/{DOG}/{TENCH}_2.JPEG"),
        f"which nette has in {TENCH}",
    ),
    (
        _moved(
            f"nette2/train/{TENCH}/ILSVRC2012_val_00000007.JPEG",
            f"nette2/train/{DOG}/ILSVRC2012_val_00000007.JPEG",
        ),
        f"which nette has in {TENCH}",
    ),
    (
        lambda files: {name: body for name, body in files.items() if "_2.JPEG" not in name},
        f"{TENCH} has 2 images, not 3; missing: {TENCH}_2.JPEG",
    ),
    (_added("../outside"), "would leave its folder"),
    (_added("/outside"), "would leave its folder"),
    (_added("nette2/train/../../outside"), "would leave its folder"),
]


@pytest.mark.parametrize("form", ["tar.gz", "zip"])
@pytest.mark.parametrize(("change", "told"), REFUSALS)
def test_what_does_not_belong_is_refused_by_name(
    form: str, change: Change, told: str, tmp_path: Path, here: Run
) -> None:
    toml, files = _nette(tmp_path / "archives")
    toml.write_text(toml.read_text().replace('form = "tar.gz"', f'form = "{form}"'))
    archive, changed = toml.parent / "nette2.tgz", change(files)
    write_zip(archive, changed) if form == "zip" else write_tar(archive, changed)
    root = tmp_path / "root"
    done = here("organize", "--root", root, "--dataset", toml, "--archives", toml.parent)
    assert done.returncode == 4, done.stderr
    assert told in done.stderr
    assert done.stderr.count("\n") == 2, "one error, one hint"
    assert not (root / "train").exists() and not (root / "val").exists()
    assert not list(tmp_path.rglob("outside"))


def test_hidden_files_and_what_lies_outside_the_samples_are_passed_over(
    tmp_path: Path, here: Run
) -> None:
    toml, files = _nette(tmp_path / "archives")
    more = {f"nette2/train/{TENCH}/._{TENCH}_2.JPEG": b"x", "nette2/.DS_Store": b"x", "a/b": b"x"}
    write_tar(toml.parent / "nette2.tgz", more | files)
    root = tmp_path / "root"
    done = here("organize", "--root", root, "--dataset", toml, "--archives", toml.parent)
    assert done.returncode == 0, done.stderr
    assert tree(root / "train") == _samples(files, "train")


def test_a_zip_with_nothing_in_it_is_refused(tmp_path: Path, here: Run) -> None:
    toml, _ = _nette(tmp_path / "archives")
    toml.write_text(toml.read_text().replace('form = "tar.gz"', 'form = "zip"'))
    write_zip(toml.parent / "nette2.tgz", {})
    root = tmp_path / "root"
    done = here("organize", "--root", root, "--dataset", toml, "--archives", toml.parent)
    assert done.returncode == 4, done.stderr
    assert "nette2.tgz has no images where they are looked for: it has no files" in done.stderr
    assert not (root / "train").exists()


@pytest.mark.parametrize("form", ["tar.gz", "tar.xz", "zip"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_archive_is_refused(form: str, share: float, tmp_path: Path, here: Run) -> None:
    toml, files = _nette(tmp_path / "archives")
    toml.write_text(toml.read_text().replace('form = "tar.gz"', f'form = "{form}"'))
    archive = toml.parent / "nette2.tgz"
    if form == "zip":
        write_zip(archive, files)
    else:
        write_tar(archive, files, mode=form.replace("tar.", "w:"))
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * share)])
    root = tmp_path / "root"
    done = here("organize", "--root", root, "--dataset", toml, "--archives", toml.parent)
    assert done.returncode == 4, done.stderr
    assert not (root / "train").exists()


def test_the_bits_of_a_compressed_archive_are_checked(tmp_path: Path, here: Run) -> None:
    toml, files = _nette(tmp_path / "archives")
    archive = write_tar(toml.parent / "nette2.tgz", files)
    body = archive.read_bytes()
    for at in range(20, len(body), 211):
        archive.write_bytes(body[:at] + bytes([body[at] ^ 4]) + body[at + 1 :])
        root = tmp_path / f"root{at}"
        done = here("organize", "--root", root, "--dataset", toml, "--archives", toml.parent)
        assert done.returncode == 4, (at, done.stderr)
        assert not (root / "train").exists()
    archive.write_bytes(body + b"junk")
    words = ["--root", tmp_path / "junk", "--dataset", toml, "--archives", toml.parent]
    done = here("organize", *words)
    assert done.returncode == 4, done.stderr


def test_a_few_bytes_do_not_become_any_number_of_zeros(tmp_path: Path, here: Run) -> None:
    toml, files = _nette(tmp_path / "archives")
    archive = write_tar(toml.parent / "nette2.tgz", files)
    archive.write_bytes(archive.read_bytes() + gzip.compress(bytes(80 << 20)))
    root = tmp_path / "root"
    done = here("organize", "--root", root, "--dataset", toml, "--archives", toml.parent)
    assert done.returncode == 4
    assert "behind its end" in done.stderr
    assert not (root / "train").exists()


def test_a_killed_organize_of_a_compressed_archive_goes_on(tmp_path: Path, run: Run) -> None:
    """The pipe stands still in the middle, the process is killed there, and starts again."""
    toml, files = _nette(tmp_path / "archives")
    body = write_tar(toml.parent / "nette2.tgz", files).read_bytes()
    words = ["--root", tmp_path / "root", "--dataset", toml, "--archives", "-"]
    process = subprocess.Popen(command("organize", *words), stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(body[: len(body) // 2])
    process.stdin.flush()
    while not (tmp_path / "root" / ".organizing" / "train").exists():
        assert process.poll() is None
    process.kill()
    process.wait()
    done = run("organize", "--root", tmp_path / "root", "--archives", toml.parent)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "root" / "val") == _samples(files, "val")


# ILSVRC2012 as Kaggle and Hugging Face pack it: the published dataset, a few classes of it.

ILSVRC = """
name = "three"
synsets = "synsets.tsv"
[train]
file_name = "{wnid}_{number}.JPEG"
samples = 6
names = "train_names.txt"
[val]
file_name = "ILSVRC2012_val_{number:08}.JPEG"
samples = 3
names = "val_names.txt"
"""


def _three(folder: Path) -> tuple[Path, Files]:
    """Three classes under the archives of `ilsvrc2012`, and the tree they must become."""
    known = load_dataset("ilsvrc2012").read("dataset.toml").decode()
    archives = known[known.index("[[archives]]") : known.index("[odd_files]")]
    kept = [
        line for line in archives.splitlines() if not line.startswith(("torrent", "size", "md"))
    ]
    kept = [line for line in kept if not line.startswith(("sha", "magnet"))]
    lists = [
        ("synsets.tsv", SYNSETS),
        ("train_names.txt", "".join(f"{wnid} {at + 1} 10\n" for at, wnid in enumerate(WNIDS))),
        ("val_names.txt", "".join(f"{wnid} {at + 1}\n" for at, wnid in enumerate(WNIDS))),
    ]
    toml = write_dataset(folder, ILSVRC + "\n".join(kept), lists)
    names = [f"{wnid}_{at + more}.JPEG" for at, wnid in enumerate(WNIDS) for more in (1, 11)]
    wanted = {f"train/{name[:9]}/{name}": picture(name) for name in names}
    for at, wnid in enumerate(WNIDS):
        name = f"ILSVRC2012_val_{at + 1:08}.JPEG"
        wanted[f"val/{wnid}/{name}"] = picture(name)
    return toml, wanted


def _as_kaggle(wanted: Files) -> Files:
    top = "ILSVRC/Data/CLS-LOC"
    files = {"ILSVRC/Annotations/CLS-LOC/train/n01440764/n01440764_1.xml": b"<annotation/>"}
    files["ILSVRC/ImageSets/CLS-LOC/val.txt"] = b"ILSVRC2012_val_00000001 1\n"
    files[f"{top}/test/ILSVRC2012_test_00000001.JPEG"] = picture("test")
    for name, body in wanted.items():
        split, wnid, file = name.split("/")
        files[f"{top}/val/{file}" if split == "val" else f"{top}/train/{wnid}/{file}"] = body
    # Labels come from the file's number; this list is not looked at, whatever it says.
    files["LOC_val_solution.csv"] = b"ImageId,PredictionString\nILSVRC2012_val_00000001,n02979186\n"
    return files


def _as_hugging_face(wanted: Files, folder: Path) -> None:
    train = [(Path(name), body) for name, body in wanted.items() if name.startswith("train")]
    for at in range(5):
        part = {f"{name.stem}_{name.parent.name}.JPEG": body for name, body in train[at::5]}
        write_tar(folder / f"train_images_{at}.tar.gz", part)
    val = [(Path(name), body) for name, body in wanted.items() if name.startswith("val")]
    flat = {f"{name.stem}_{name.parent.name}.JPEG": body for name, body in val}
    write_tar(folder / "val_images.tar.gz", flat)


KAGGLE_ZIP = "imagenet-object-localization-challenge.zip"
KAGGLE_TAR = "imagenet_object_localization_patched2019.tar.gz"


@pytest.mark.parametrize("name", [KAGGLE_ZIP, KAGGLE_TAR])
@pytest.mark.parametrize("named", [True, False])
def test_kaggles_archive_is_the_same_dataset(
    name: str, named: bool, tmp_path: Path, here: Run
) -> None:
    toml, wanted = _three(tmp_path / "archives")
    archive = toml.parent / name
    (write_zip if name == KAGGLE_ZIP else write_tar)(archive, _as_kaggle(wanted))
    place = archive if named else archive.parent
    root = tmp_path / "root"
    done = here("organize", "--root", root, "--dataset", toml, "--archives", place)
    assert done.returncode == 0, done.stderr
    ours = tree(root)
    assert {path: body for path, body in ours.items() if path.endswith(".JPEG")} == wanted


def test_hugging_faces_parts_are_the_same_dataset(tmp_path: Path, here: Run) -> None:
    toml, wanted = _three(tmp_path / "archives")
    _as_hugging_face(wanted, toml.parent)
    root = tmp_path / "root"
    words = ["organize", "--root", root, "--dataset", toml, "--archives", toml.parent]
    missing = toml.parent / "train_images_3.tar.gz"
    missing.rename(tmp_path / missing.name)
    done = here(*words)
    assert done.returncode == 1
    assert "train_images_3.tar.gz is not there" in done.stderr
    (tmp_path / missing.name).rename(missing)
    done = here(*words)
    assert done.returncode == 0, done.stderr
    ours = tree(root)
    assert {path: body for path, body in ours.items() if path.endswith(".JPEG")} == wanted
    receipt = json.loads((root / "receipt.json").read_text())
    assert receipt["splits"]["train"]["archive"].count("train_images_") == 5


def test_a_part_that_is_taken_is_not_read_again(tmp_path: Path, here: Run) -> None:
    """The last part is damaged; once it is mended, the first is only asked for what it is."""
    toml, wanted = _three(tmp_path / "archives")
    _as_hugging_face(wanted, toml.parent)
    last = toml.parent / "train_images_4.tar.gz"
    right = last.read_bytes()
    last.write_bytes(right[:30] + bytes(len(right) - 30))
    with web_served(toml.parent) as web:
        words = ["organize", "--root", tmp_path / "root", "--dataset", toml]
        words += ["--archives", web.address, "--split", "train"]
        done = here(*words)
        assert done.returncode == 4, done.stderr
        last.write_bytes(right)
        web.asked.clear()
        done = here(*words)
        assert done.returncode == 0, done.stderr
        asked = [span for path, span in web.asked if path == "/train_images_0.tar.gz"]
    assert set(asked) == {"bytes=0-0"}, "what it is, and no more"
    assert len(tree(tmp_path / "root" / "train")) == 6


def test_a_label_that_is_not_the_names_is_refused(tmp_path: Path, here: Run) -> None:
    toml, wanted = _three(tmp_path / "archives")
    _as_hugging_face(wanted, toml.parent)
    flat = {f"ILSVRC2012_val_{at + 1:08}_{WNIDS[at - 1]}.JPEG": b"x" for at in range(3)}
    write_tar(toml.parent / "val_images.tar.gz", flat)
    words = ["--root", tmp_path / "root", "--dataset", toml, "--archives", toml.parent]
    done = here("organize", *words, "--split", "val")
    assert done.returncode == 4
    assert "which three has in n01440764" in done.stderr


def test_a_file_that_is_no_archive_of_the_dataset_is_told(tmp_path: Path, here: Run) -> None:
    other = tmp_path / "other.zip"
    other.write_bytes(b"")
    done = here("organize", "--root", tmp_path / "root", "--archives", other)
    assert done.returncode == 1
    assert "ilsvrc2012 has no archive called other.zip" in done.stderr
    assert KAGGLE_ZIP in done.stderr


def test_what_cannot_come_through_a_pipe_is_wrong_usage(tmp_path: Path, here: Run) -> None:
    words = ["organize", "--root", tmp_path / "root", "--dataset", "tiny-imagenet"]
    done = here(*words, "--archives", "-")
    assert done.returncode == 2
    assert "at its end, where no pipe can look first" in done.stderr


def test_what_cannot_be_consumed_is_wrong_usage(tmp_path: Path, here: Run) -> None:
    toml, files = _nette(tmp_path / "archives")
    write_tar(toml.parent / "nette2.tgz", files)
    words = ["organize", "--root", tmp_path / "root", "--dataset", toml, "--consume"]
    done = here(*words, "--archives", toml.parent)
    assert done.returncode == 2
    assert "only an uncompressed tar of one split can" in done.stderr


# Tiny-ImageNet: a zip, images one folder deeper, boxes beside them, validation flat.

TINY = """
name = "tiny"
synsets = "synsets.tsv"
[train]
file_name = "{wnid}_{number}.JPEG"
samples = 6
samples_per_class = 2
[val]
file_name = "val_{number}.JPEG"
samples = 3
names = "val_names.txt"
"""


def _tiny(folder: Path) -> tuple[Path, Files]:
    known = load_dataset("tiny-imagenet").read("dataset.toml").decode()
    kept = known[known.index("[[archives]]") :].splitlines()
    kept = [line for line in kept if not line.startswith(("size", "md5"))]
    names = "".join(f"{wnid} {at}\n" for at, wnid in enumerate(WNIDS))
    lists = [("synsets.tsv", SYNSETS), ("val_names.txt", names)]
    toml = write_dataset(folder, TINY + "\n".join(kept), lists)
    top = "tiny-imagenet-200"
    files = {f"{top}/wnids.txt": b"", f"{top}/val/val_annotations.txt": b"val_0.JPEG\tn01440764\t0"}
    for at, wnid in enumerate(WNIDS):
        files[f"{top}/train/{wnid}/{wnid}_boxes.txt"] = b"0\t0\t0\t0"
        for number in (0, 1):
            name = f"{top}/train/{wnid}/images/{wnid}_{number}.JPEG"
            files[name] = picture(name)
        files[f"{top}/val/images/val_{at}.JPEG"] = picture(f"val{at}")
        files[f"{top}/test/images/test_{at}.JPEG"] = picture(f"test{at}")
    return toml, files


def test_tiny_imagenets_zip(tmp_path: Path, here: Run) -> None:
    toml, files = _tiny(tmp_path / "archives")
    archive = write_zip(toml.parent / "tiny-imagenet-200.zip", files, packed=True)
    root = tmp_path / "root"
    done = here("organize", "--root", root, "--dataset", toml, "--archives", archive.parent)
    assert done.returncode == 0, done.stderr
    train, val = tree(root / "train"), tree(root / "val")
    assert len(train) == 6 and len(val) == 3
    for name, body in train.items():
        wnid, file = name.split("/")
        assert body == files[f"tiny-imagenet-200/train/{wnid}/images/{file}"]
    assert val[f"{WNIDS[1]}/val_1.JPEG"] == picture("val1")


def test_a_zip_with_a_digest_is_read_once_in_order(tmp_path: Path, here: Run) -> None:
    toml, files = _tiny(tmp_path / "archives")
    archive = write_zip(toml.parent / "tiny-imagenet-200.zip", files)
    text, right = toml.read_text(), hashlib.md5(archive.read_bytes()).hexdigest()
    for digest, code in (("0" * 32, 4), (right, 0)):
        toml.write_text(f'{text}\nmd5 = "{digest}"\n')
        root = tmp_path / f"root{code}"
        done = here("organize", "--root", root, "--dataset", toml, "--archives", archive.parent)
        assert done.returncode == code, done.stderr
        assert (root / "train").exists() == (code == 0)


def test_a_zip_from_a_web_server(tmp_path: Path, here: Run) -> None:
    toml, files = _tiny(tmp_path / "archives")
    archive = write_zip(toml.parent / "tiny-imagenet-200.zip", files)
    with web_served(archive.parent) as web:
        root = tmp_path / "root"
        done = here("organize", "--root", root, "--dataset", toml, "--archives", web.address)
    assert done.returncode == 0, done.stderr
    assert len(tree(root / "train")) == 6


def _patched(body: bytes, at: int, form: str, value: int) -> bytes:
    return body[:at] + struct.pack(form, value) + body[at + struct.calcsize(form) :]


def _entry_at(body: bytes, file: str) -> int:
    """Where the directory of a zip has `file`."""
    return body.rindex(file.encode()) - 46


LAST = f"tiny-imagenet-200/train/{WNIDS[2]}/images/{WNIDS[2]}_1.JPEG"
FIRST = f"tiny-imagenet-200/train/{WNIDS[0]}/images/{WNIDS[0]}_0.JPEG"
LIES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "encrypted": (lambda body: _patched(body, _entry_at(body, LAST) + 8, "<H", 1), "is encrypted"),
    "method": (lambda body: _patched(body, _entry_at(body, LAST) + 10, "<H", 12), "by method 12"),
    "crc": (lambda body: _patched(body, _entry_at(body, LAST) + 16, "<L", 1), "wrong CRC or size"),
    "more": (lambda body: _patched(body, _entry_at(body, LAST) + 24, "<L", 10**5), "wrong CRC or"),
    "less": (lambda body: _patched(body, _entry_at(body, LAST) + 24, "<L", 9), "wrong CRC or size"),
    "large": (lambda body: _patched(body, _entry_at(body, LAST) + 24, "<L", 2**31), "of 2,147,"),
    "packed": (lambda body: _patched(body, _entry_at(body, LAST) + 20, "<L", 2**31), "overlap"),
    "start": (
        lambda body: _patched(body, _entry_at(body, LAST) + 42, "<L", body.index(FIRST.encode())),
        "overlap",
    ),
    "link": (
        lambda body: _patched(
            _patched(body, _entry_at(body, LAST) + 5, "<B", 3),
            _entry_at(body, LAST) + 40, "<H", 0o120777,
        ),
        "is a link",
    ),
    "name": (
        lambda body: body.replace(LAST.encode(), LAST.replace("_1.J", "_7.J").encode(), 1),
        "is not as listed",
    ),
    "count": (lambda body: _patched(body, len(body) - 12, "<H", 65000), "and counts 65,000"),
    "volumes": (lambda body: _patched(body, len(body) - 18, "<H", 1), "several volumes"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_zip_that_lies_is_refused(lie: str, tmp_path: Path, here: Run) -> None:
    toml, files = _tiny(tmp_path / "archives")
    archive = write_zip(toml.parent / "tiny-imagenet-200.zip", files, packed=True)
    change, told = LIES[lie]
    archive.write_bytes(change(archive.read_bytes()))
    root = tmp_path / "root"
    done = here("organize", "--root", root, "--dataset", toml, "--archives", archive.parent)
    assert done.returncode == 4, done.stderr
    assert told in done.stderr
    assert not (root / "train").exists()


# CIFAR-10: the published pickles, read without executing them; and JPEG folders.


def _cifar(folder: Path, *, test_batch: bytes | None = None) -> tuple[Path, list[bytes]]:
    """Two batches of ten and a test batch of ten in the published form; the images' planes."""
    known = load_dataset("cifar10")
    text = known.read("dataset.toml").decode()
    text = "\n".join(line for line in text.splitlines() if not line.startswith(("size_b", "md5")))
    text = text.replace("samples_per_class = 5000", "samples_per_class = 2").replace("50000", "20")
    text = text.replace("samples_per_class = 1000", "samples_per_class = 1").replace("10000", "10")
    toml = write_dataset(folder, text, [("synsets.tsv", known.read("synsets.tsv").decode())])
    images = [bytes((at + step) % 256 for step in range(3072)) for at in range(30)]
    labels = [(7 * at) % 10 for at in range(10)]
    batches = {
        f"cifar-10-batches-py/{name}": cifar_batch(
            labels, b"".join(images[at : at + 10]), names=name
        )
        for name, at in (("data_batch_1", 0), ("data_batch_2", 10), ("test_batch", 20))
    }
    files = {"cifar-10-batches-py/batches.meta": b"not looked at", **batches}
    files["cifar-10-batches-py/readme.html"] = b"<html>"
    if test_batch is not None:
        files["cifar-10-batches-py/test_batch"] = test_batch
    write_tar(folder / "cifar-10-python.tar.gz", files)
    return toml, images


def test_cifars_pickles_become_lossless_images(tmp_path: Path, here: Run) -> None:
    toml, images = _cifar(tmp_path / "archives")
    root = tmp_path / "root"
    done = here("organize", "--root", root, "--dataset", toml, "--archives", toml.parent)
    assert done.returncode == 0, done.stderr
    assert (len(tree(root / "train")), len(tree(root / "val"))) == (20, 10)
    horse = Image.open(root / "train" / "horse" / "horse_00001.png")  # 7 * 1
    assert horse.size == (32, 32)
    planes = b"".join(band.tobytes() for band in horse.split())
    assert planes == images[1], "the second image of the first batch"
    second = Image.open(root / "train" / "horse" / "horse_10001.png")
    assert b"".join(band.tobytes() for band in second.split()) == images[11]
    assert here("verify", "--root", root, "--digests", "--decode").returncode == 0


class _Trap:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {os.environ['TRAP']}",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_a_pickle_that_runs_something_is_refused_and_does_not(
    protocol: int, tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    evil = pickle.dumps({b"labels": [], b"data": _Trap()}, protocol=protocol)
    toml, _ = _cifar(tmp_path / "archives", test_batch=evil)
    root = tmp_path / "root"
    done = here("organize", "--root", root, "--dataset", toml, "--archives", toml.parent)
    assert done.returncode == 4, done.stderr
    told = "it names" if protocol else "it has the instruction"
    assert f"is not a batch of CIFAR-10: {told}" in done.stderr
    assert not (tmp_path / "sprung").exists()
    assert not (root / "val").exists()
    pickle.loads(evil)
    assert (tmp_path / "sprung").exists(), "it does run where pickles do"


PICKLES: dict[str, bytes] = {
    "cut short": cifar_batch([3], bytes(3072), names="x")[:-5],
    "no pickle": b"hello",
    "too few bytes": cifar_batch([3], bytes(3071), names="x"),
    "a label too high": cifar_batch([10], bytes(3072), names="x"),
    "no dict": pickle.dumps([1], protocol=2),
    "a memo at the end of memory": b"\x80\x02}r\xff\xff\xff\x7f.",
    "a long string that is not there": b"\x80\x02T\xff\xff\xff\x7f",
    "a call of what is no name": b"\x80\x02K\x01)R.",
    "a state for what is not built": b"\x80\x02}}b.",
    "a persistent object": b"\x80\x02}Pxx\n.",
    "an extension": b"\x80\x02}\x82\x01.",
    "another class": b"\x80\x02}cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
}


@pytest.mark.parametrize("which", PICKLES)
def test_a_pickle_of_anything_else_is_refused(which: str) -> None:
    with pytest.raises(WrongBytes, match="is not a batch of CIFAR-10"):
        list(cifar_images(PICKLES[which], name="batch"))


def test_cifars_jpeg_folders(tmp_path: Path, here: Run) -> None:
    known = load_dataset("cifar10-jpeg")
    text = known.read("dataset.toml").decode().replace("50000", "20").replace("10000", "10")
    text = text.replace("_class = 5000", "_class = 2").replace("_class = 1000", "_class = 1")
    folder = tmp_path / "archives"
    toml = write_dataset(folder, text, [("synsets.tsv", known.read("synsets.tsv").decode())])
    files = {}
    for synset in known.synsets:
        for number in range(2):
            files[f"train/{synset.wnid}/{number:04}.jpg"] = picture(f"{synset.wnid} {number}")
        files[f"test/{synset.wnid}/0000.jpg"] = picture(f"test {synset.wnid}")
    write_tar(folder / "cifar10_jpeg.tar.xz", files, mode="w:xz")
    done = here("organize", "--root", tmp_path / "root", "--dataset", toml, "--archives", folder)
    assert done.returncode == 0, done.stderr
    assert len(tree(tmp_path / "root" / "train")) == 20
    val = tree(tmp_path / "root" / "val")
    assert val["frog/frog_0000.jpg"] == picture("test frog"), "the class is in the name too"
