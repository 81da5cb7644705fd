"""Each kind of damage is mended: after repair, verify has no findings and the tree is as before."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from imnetprep import cli
from imnetprep.catalog.datasets import load_dataset
from imnetprep.synthetic import pack_dataset
from tests.conftest import Run, command, tree
from tests.servers import web_served

WNID, OTHER = "n01440764", "n01443537"


def _samples(root: Path) -> dict[str, bytes]:
    return {f"{s}/{n}": b for s in ("train", "val") for n, b in tree(root / s).items()}


def _first(root: Path, wnid: str = WNID) -> Path:
    return min((root / "train" / wnid).iterdir())


def _flat_val(root: Path) -> None:
    for path in sorted((root / "val").rglob("*.JPEG")):
        path.rename(root / "val" / path.name)


def _flat_val_without_folders(root: Path) -> None:
    _flat_val(root)
    for folder in [path for path in (root / "val").iterdir() if path.is_dir()]:
        folder.rmdir()


def _numeric(split: str, number: Callable[[int], int]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        for label, folder in enumerate(sorted((root / split).iterdir())):
            folder.rename(root / split / str(number(label)))

    damage.__name__ = f"numeric_{split}"
    return damage


def _by_position(root: Path) -> None:
    """One validation image is lost, and every later name gets its neighbour's label."""
    paths = sorted((root / "val").rglob("*.JPEG"), key=lambda path: path.name)
    wnids = [path.parent.name for path in paths]
    paths[0].unlink()
    for path, wnid in zip(paths[1:], wnids, strict=False):
        path.rename(root / "val" / wnid / path.name)


def _missing_file(root: Path) -> None:
    _first(root).unlink()


def _missing_class(root: Path) -> None:
    shutil.rmtree(root / "train" / WNID)


def _truncated(root: Path) -> None:
    path = _first(root)
    path.write_bytes(path.read_bytes()[:-10])


def _zero_size(root: Path) -> None:
    _first(root).write_bytes(b"")


def _zero_size_elsewhere(root: Path) -> None:
    path = _first(root)
    path.write_bytes(b"")
    path.rename(root / "train" / OTHER / path.name)


def _link(root: Path) -> None:
    path = _first(root)
    path.unlink()
    path.symlink_to(root / "nowhere")


def _class_in_a_folder_of_another_name(root: Path) -> None:
    (root / "train" / WNID).rename(root / "train" / "tench")


def _strewn_over_a_foreign_folder(root: Path) -> None:
    place = root / "train" / "new folder"
    place.mkdir()
    for wnid in (WNID, OTHER):
        _first(root, wnid).rename(place / _first(root, wnid).name)


DAMAGE = [
    _flat_val, _flat_val_without_folders, _numeric("val", lambda label: label),
    _numeric("train", lambda label: 900 + label), _by_position, _missing_file, _missing_class,
    _truncated, _zero_size, _zero_size_elsewhere, _link, _class_in_a_folder_of_another_name,
    _strewn_over_a_foreign_folder,
]  # fmt: skip


@pytest.mark.parametrize("listed", [True, False], ids=["manifest", "no manifest"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_mended(
    damage: Callable[[Path], None], listed: bool, organized: Path, packed: Path, here: Run
) -> None:
    before = _samples(organized)
    words = ["--root", organized, "--dataset", packed]
    if not listed:
        (organized / "manifest.db").unlink()
    damage(organized)
    assert here("verify", *words).returncode == 5
    shown = here("repair", *words, "--from", packed.parent, "--dry-run")
    assert (shown.returncode, shown.stderr) == (0, "") and "\nleave" not in shown.stdout
    done = here("repair", *words, "--from", packed.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    verified = here("verify", *words, *["--digests"] * listed)
    assert verified.returncode == 0, verified.stdout
    assert _samples(organized) == before


def test_a_flipped_bit_is_taken_anew(organized: Path, packed: Path, here: Run) -> None:
    before, path = _samples(organized), _first(organized)
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    words = ["--root", organized, "--from", packed.parent]
    assert "0 taken" in here("repair", *words).stdout  # its name and size are right
    done = here("repair", *words, "--digests", "--split", "train")
    wanted = "1 taken from the archive (verified by the manifest's digests)"
    assert done.returncode == 0 and wanted in done.stdout, done.stdout
    assert _samples(organized) == before


def test_what_is_missing_is_taken_from_the_web(organized: Path, packed: Path, here: Run) -> None:
    before = tree(organized)
    _missing_file(organized)
    _first(organized, OTHER).write_bytes(b"")
    with web_served(packed.parent) as web:
        done = here("repair", "--root", organized, "--from", web.address)
    assert done.returncode == 0, done.stderr
    assert tree(organized) == before
    piped = here("repair", "--root", organized, "--from", "-")
    assert piped.returncode == 2


def test_what_is_too_many_is_deleted_only_when_told(organized: Path, here: Run) -> None:
    before = _samples(organized)
    shutil.copy(_first(organized), organized / "train" / OTHER)
    (organized / "val" / "notes.txt").write_text("mine")
    (organized / "train" / "mine" / "deep").mkdir(parents=True)
    (organized / "train" / "mine" / "deep" / "thesis.tex").write_text("mine")
    damaged, words = tree(organized), ["repair", "--root", organized]
    kept = here(*words)
    assert kept.returncode == 5
    assert "extra: train/mine/deep/thesis.tex" in kept.stdout and "3 findings left" in kept.stdout
    shown = here(*words, "--delete", "--dry-run")
    assert shown.stdout.count("delete ") == 3
    assert tree(organized / "train") == tree(organized / "train") and _samples(organized) != before
    assert {
        n: b for n, b in tree(organized).items() if "journal" not in n and ".lock" not in n
    } == {n: b for n, b in damaged.items() if "journal" not in n and ".lock" not in n}
    done = here(*words, "--delete")
    assert done.returncode == 0, done.stdout
    assert _samples(organized) == before
    assert here("verify", "--root", organized, "--digests").returncode == 0


def test_of_two_files_of_one_name_the_digest_knows_the_right_one(
    organized: Path, here: Run
) -> None:
    """The one in its place has the right size and wrong bytes; the right one lies elsewhere."""
    before, path = _samples(organized), _first(organized)
    shutil.copy(path, organized / "train" / OTHER)
    path.write_bytes(bytes(path.stat().st_size))
    done = here("repair", "--root", organized)
    assert done.returncode == 0, done.stdout
    assert _samples(organized) == before


def test_of_two_files_of_one_name_none_is_chosen_by_guess(
    organized: Path, packed: Path, here: Run
) -> None:
    before, path = _samples(organized), _first(organized)
    (organized / "manifest.db").unlink()
    shutil.copy(path, organized / "train" / OTHER)
    path.write_bytes(b"\xff\xd8 something else \xff\xd9")
    damaged = _samples(organized)
    words = ["repair", "--root", organized, "--dataset", packed, "--delete"]
    done = here(*words)
    assert done.returncode == 5
    assert (
        f"conflict: train/{WNID}/{path.name} 2 different files belong in this place" in done.stdout
    )
    assert _samples(organized) == damaged
    done = here(*words, "--from", packed.parent)  # which knows the right one
    assert done.returncode == 0, done.stdout
    assert _samples(organized) == before


def test_without_the_archive_the_rest_is_mended_and_the_missing_named(
    organized: Path, here: Run
) -> None:
    path = _first(organized)
    path.unlink()
    _flat_val(organized)
    done = here("repair", "--root", organized, "--json")
    assert done.returncode == 5
    train, _missing, val, summary = map(json.loads, done.stdout.splitlines())
    assert (train["moved"], val["moved"]) == (0, 20)
    assert here("verify", "--root", organized, "--split", "val").returncode == 0
    assert path.name in done.stdout and summary["findings"] == 1


def test_an_archive_that_lies_is_not_believed(organized: Path, packed: Path, here: Run) -> None:
    folder = Path(shutil.copytree(packed.parent, organized / "archives"))
    path = _first(organized)
    body = path.read_bytes()
    archive = folder / "ILSVRC2012_img_train.tar"
    archive.write_bytes(archive.read_bytes().replace(body, body[:-12] + b"x" * 12))
    path.unlink()
    done = here("repair", "--root", organized)
    assert done.returncode == 5
    assert f"digest: train/{WNID}/{path.name}" in done.stdout
    assert not path.exists()


def test_the_pieces_of_the_torrent_prove_what_is_taken(
    packed: Path, tmp_path: Path, here: Run
) -> None:
    import libtorrent as lt

    folder = Path(shutil.copytree(packed.parent, tmp_path / "published"))
    archive, toml = folder / "ILSVRC2012_img_val.tar", folder / packed.name
    torrent = lt.create_torrent(lt.list_files(str(archive)), 16384, lt.create_torrent.v1_only)
    lt.set_piece_hashes(torrent, str(folder))
    (folder / "val.torrent").write_bytes(lt.bencode(torrent.generate()))
    toml.write_text(toml.read_text() + 'torrent = "val.torrent"\n')
    root = tmp_path / "root"
    words = ["--root", root, "--dataset", toml, "--split", "val"]
    assert here("organize", *words, "--archives", folder).returncode == 0
    before = tree(root / "val")
    (root / "manifest.db").unlink()
    shutil.rmtree(root / "val" / WNID)
    right = archive.read_bytes()
    body = before[next(name for name in before if name.startswith(WNID))]
    archive.write_bytes(right.replace(body, body[:-12] + b"x" * 12))
    done = here("repair", *words, "--from", folder)
    assert done.returncode == 5
    assert "archive: val/" in done.stdout and "is not what torrent" in done.stdout
    archive.write_bytes(right)
    done = here("repair", *words, "--from", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verified by the torrent's pieces" in done.stdout
    assert tree(root / "val") == before


def test_a_dataset_that_knows_only_counts_is_mended_too(
    organized: Path, packed: Path, tmp_path: Path, here: Run
) -> None:
    folder = Path(shutil.copytree(packed.parent, tmp_path / "published"))
    toml = folder / packed.name
    toml.write_text(toml.read_text().replace('names = "train_names.txt"', "samples_per_class = 12"))
    assert load_dataset(str(toml)).names(load_dataset(str(toml)).splits[0], 0) is None
    before = _samples(organized)
    (organized / "manifest.db").unlink()
    _missing_file(organized)
    _first(organized).rename(organized / "train" / OTHER / _first(organized).name)
    shutil.rmtree(organized / "train" / "n01484850")
    words = ["--root", organized, "--dataset", toml]
    found = here("verify", *words).stdout
    assert f"count: train/{WNID} has 10 images, not 12" in found
    done = here("repair", *words, "--from", folder)
    assert done.returncode == 0, done.stdout
    assert "verified by nothing but their names" in done.stdout
    assert _samples(organized) == before
    assert here("verify", *words).returncode == 0


def test_another_dataset_is_not_sorted_by_our_names(
    real_data: Path, tmp_path: Path, here: Run
) -> None:
    """Tiny-ImageNet reuses the validation names of ILSVRC2012 with other labels."""
    from tests.conftest import DATASETS

    words = ["--dataset", DATASETS / "tiny10.toml", "--archives", real_data / "tiny10"]
    assert here("organize", "--root", tmp_path, *words, "--split", "val").returncode == 0
    (tmp_path / "manifest.db").unlink()
    before = tree(tmp_path / "val")
    refused = here("repair", "--root", tmp_path, "--dataset", "ilsvrc2012", "--split", "val")
    assert refused.returncode == 1
    assert "it is another dataset" in refused.stderr
    guessed = here("repair", "--root", tmp_path)
    assert guessed.returncode == 1
    assert "of no built-in dataset" in guessed.stderr
    assert tree(tmp_path / "val") == before


def test_a_split_that_is_a_link_is_left_to_its_own_root(organized: Path, here: Run) -> None:
    (organized / "val").rename(organized.parent / "elsewhere")
    (organized / "val").symlink_to(organized.parent / "elsewhere")
    _flat_val(organized)
    done = here("repair", "--root", organized, "--split", "val")
    assert done.returncode == 1 and "is a link to" in done.stderr


def test_nothing_is_written_through_a_link(organized: Path, packed: Path, here: Run) -> None:
    outside = organized.parent / "outside"
    outside.mkdir()
    shutil.rmtree(organized / "train" / WNID)
    (organized / "train" / WNID).symlink_to(outside)
    words = ["repair", "--root", organized, "--from", packed.parent]
    done = here(*words)
    assert done.returncode == 5 and "a link for a class folder" in done.stdout
    assert list(outside.iterdir()) == []
    (organized / "train" / WNID).unlink()
    assert here(*words).returncode == 0 and list(outside.iterdir()) == []
    assert here("verify", "--root", organized, "--digests").returncode == 0


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A larger packed dataset and its organized root beside it."""
    folder = tmp_path_factory.mktemp("larger")
    toml = pack_dataset(
        folder, classes=20, train_per_class=20, val_per_class=100, image_bytes=20_000
    )
    words = ["--root", folder / "root", "--dataset", toml, "--archives", folder]
    assert cli.run(list(map(str, ["organize", *words]))) == 0
    return toml


@pytest.mark.parametrize("at", [0.02, 0.3, 0.7])
def test_killed_in_the_middle_it_goes_on(
    larger: Path, tmp_path: Path, here: Run, at: float
) -> None:
    whole = larger.parent / "root"
    root = Path(shutil.copytree(whole, tmp_path / "root"))
    (root / "manifest.db").unlink()
    _flat_val_without_folders(root)
    for folder in sorted((root / "train").iterdir())[5:]:
        shutil.rmtree(folder)
    words = ["repair", "--root", root, "--dataset", larger, "--from", larger.parent]
    steps = len(tree(whole / "val")) + len(tree(whole / "train")) * 3 // 4
    process = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL)
    while process.poll() is None and _done(root) < at * steps:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -9, "it was over before the kill"
    wanted = _samples(whole)
    for name, body in _samples(root).items():  # every file is whole under its name
        assert wanted.get(name, body) == body
    done = here(*words)
    assert done.returncode == 0, done.stdout
    assert _samples(root) == wanted
    assert not (root / ".organizing" / "repair").exists()


def test_the_draft_of_a_run_killed_at_its_end_goes(organized: Path, here: Run) -> None:
    draft = organized / ".organizing" / "repair"
    draft.mkdir(parents=True)
    (draft / "0").write_bytes(b"a sample")
    assert here("repair", "--root", organized).returncode == 0
    assert not draft.exists()


def _done(root: Path) -> int:
    """Files that repair has sorted or put into its draft folder."""
    places = [*(root / "val").glob("n*"), *(root / "train").glob("n*"), root / ".organizing/repair"]
    return sum(len(tuple(os.scandir(place))) for place in places if place.is_dir()) - 100


@pytest.fixture
def own(tmp_path: Path, here: Run) -> Path:
    """A root of one's own images, whose folder lies beside it; both classes have the same names."""
    for wnid in ("hen", "cock"):
        (tmp_path / "farm" / wnid).mkdir(parents=True)
        for at in range(8):
            image = Image.new("RGB", (9, 9), (at * 20, 0, 200 if wnid == "hen" else 0))
            image.save(tmp_path / "farm" / wnid / f"{at}.png")
    return tmp_path / "root"


def _divided(own: Path, here: Run) -> list[Path]:
    """The images in train, where one can be damaged without its original."""
    words = "divide", own.parent / "farm", "--root", own, "--val-fraction", "0.25", "--copy"
    assert here(*words).returncode == 0
    return sorted((own / "train").rglob("*.png"))


def test_images_of_ones_own_come_back_from_their_folder(own: Path, here: Run) -> None:
    paths = _divided(own, here)
    before = _samples(own)
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:-9])
    paths[-1].write_bytes(paths[-2].read_bytes())
    shutil.rmtree(own / "val" / "hen")
    told = here("verify", "--root", own, "--digests")
    assert told.returncode == 5
    assert f"imnetprep repair --root {own} --digests takes what it can" in told.stderr
    shown = here("repair", "--root", own, "--digests", "--dry-run")
    assert shown.returncode == 0 and "\nleave" not in shown.stdout, shown.stderr
    done = here("repair", "--root", own, "--digests")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"3 taken from {own.parent / 'farm'} (verified by the manifest's digests)" in done.stdout
    assert _samples(own) == before
    assert here("verify", "--root", own, "--digests", "--decode").returncode == 0


def test_an_image_of_ones_own_that_changed_in_its_folder_is_not_taken(own: Path, here: Run) -> None:
    path = _divided(own, here)[0]
    Image.new("RGB", (5, 5)).save(own.parent / "farm" / path.parent.name / path.name)
    path.unlink()
    done = here("repair", "--root", own, "--from", own.parent / "farm")
    assert done.returncode == 5 and not path.exists()
    assert "has another digest in the manifest than in " in done.stdout
    for place in (own.parent / "nowhere", "s3://bucket/farm"):
        told = here("repair", "--root", own, "--from", place)
        assert told.returncode == 2 and f"{place} is not where its images came from" in told.stderr


def test_what_is_whole_nowhere_can_be_left_out(own: Path, here: Run) -> None:
    assert here("divide", own.parent / "farm", "--root", own).returncode == 0
    cut = b"\xff\xd8\xff\xe0 has the ends of a JPEG \xff\xd9"
    for at, body in ((3, b""), (4, cut), (5, b"<html>Gone")):  # a link is the same file
        (own.parent / "farm" / "hen" / f"{at}.png").write_bytes(body)
    told = here("verify", "--root", own, "--decode")
    assert "hen/5.png is a web page, not an image" in told.stdout
    done = here("repair", "--root", own, "--decode")
    assert done.returncode == 5 and "3 findings left" in done.stdout
    assert f"hen/3.png stays as it is: {own.parent}/farm/hen/3.png is empty" in done.stdout
    assert f"hen/4.png stays as it is: {own.parent}/farm/hen/4.png does not " in done.stdout
    _follow(done.stderr, here)
    again = here("verify", "--root", own, "--decode", "--digests")
    assert again.returncode == 0, again.stdout


def _follow(told: str, here: Run) -> None:
    """Type the commands at the end of `told`."""
    commands = told.strip().rpartition(": ")[2]
    move, adopt = map(shlex.split, commands.split("; then "))
    Path(move[1]).rename(move[2])
    done = here(*adopt[1:])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("outside", [False, True])
def test_a_bad_image_of_an_adopted_folder_can_be_left_out(
    own: Path, outside: bool, here: Run
) -> None:
    """Of the folder itself, whose val is a link in it, or of a root of links beside it."""
    folder = own.parent / "flock"
    for split in ("train", "valid"):
        shutil.copytree(own.parent / "farm", folder / split)
    root = own if outside else folder
    assert here("adopt", folder, "--root", root).returncode == 0
    (folder / "valid" / "hen" / "1.png").write_bytes(b"")
    assert here("verify", "--root", root).returncode == 5
    done = here("repair", "--root", root)
    assert done.returncode == (1 if outside else 5), done.stderr
    _follow(done.stderr, here)
    assert here("verify", "--root", root, "--decode").returncode == 0
