"""A subset is a dataset of its own: its files, its labels, its counts; nothing else slips in."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imnetprep import cli
from imnetprep.catalog.datasets import Dataset, Layout, Root, Split, load_dataset
from imnetprep.catalog.subsets import BUILT_IN_LISTS, read_list, subset_of
from imnetprep.manifest import open_manifest
from imnetprep.organizing.journal import Stage, UnfinishedSplit
from imnetprep.subset import plan_subset
from tests.conftest import DATASETS, Run, tree

ILSVRC2012 = load_dataset("ilsvrc2012")
CLASSES = ["n01491361", "n01443537"]  # labels 3 and 1 of the source, 1 and 0 of the subset


def _listed(folder: Path, *lines: str) -> Path:
    path = folder / "mine.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def _train_names(root: Path, wnid: str) -> list[str]:
    return sorted(path.name for path in (root / "train" / wnid).iterdir())


def _labels(root: Path, split: Split) -> dict[str, int]:
    """The label of each sample that the manifest lists, by wnid/name."""
    with open_manifest(root / "manifest.db") as manifest:
        return {
            f"{synset.wnid}/{sample.name}": sample.label
            for synset in manifest.synsets()
            for sample in manifest.samples(
                manifest.splits()[split, Layout.IMAGEFOLDER], synset.label
            )
        }


def test_chosen_classes_become_a_root_of_hard_links_with_ranks_for_labels(
    organized_once: Path, tmp_path: Path, run: Run
) -> None:
    listed = _listed(tmp_path, "# two sharks and a fish", *CLASSES, "", f"{CLASSES[0]}  # again")
    to = tmp_path / "to"
    done = run("subset", listed, "--root", organized_once, "--to", to, "--json")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["split"], each["samples"]) for each in records] == [("train", 24), ("val", 8)]
    for split in (Split.TRAIN, Split.VAL):
        everything = tree(organized_once / split)
        wanted = {name: body for name, body in everything.items() if name[:9] in CLASSES}
        assert tree(to / split) == wanted
        assert _labels(to, split) == {name: sorted(CLASSES).index(name[:9]) for name in wanted}
        for name in wanted:
            assert (to / split / name).samefile(organized_once / split / name)
    verified = run("verify", "--root", to, "--digests")
    assert verified.returncode == 0, verified.stdout
    with open_manifest(to / "manifest.db") as manifest:
        synsets = manifest.synsets()
    assert [(each.label, each.wnid, each.ilsvrc_id) for each in synsets] == [
        (0, "n01443537", 450),
        (1, "n01491361", 443),
    ]


def test_named_files_restrict_train_and_leave_the_validation_of_their_classes_whole(
    organized_once: Path, tmp_path: Path, run: Run
) -> None:
    files = [
        *_train_names(organized_once, CLASSES[0])[:2],
        *_train_names(organized_once, CLASSES[1])[:5],
    ]
    to = tmp_path / "to"
    done = run("subset", _listed(tmp_path, *files), "--root", organized_once, "--to", to)
    assert done.returncode == 0, done.stderr
    assert {Path(name).name for name in tree(to / "train")} == set(files)
    assert set(_labels(to, Split.TRAIN).values()) == {0, 1}
    whole = {name for name in tree(organized_once / "val") if name[:9] in CLASSES}
    assert set(tree(to / "val")) == whole
    assert run("verify", "--root", to, "--digests").returncode == 0


def test_the_receipt_says_what_it_was_taken_from(
    organized_once: Path, tmp_path: Path, run: Run
) -> None:
    words = ["subset", _listed(tmp_path, *CLASSES), "--root", organized_once]
    assert run(*words, "--to", tmp_path / "to").returncode == 0
    train = json.loads((tmp_path / "to" / "receipt.json").read_text())["splits"]["train"]
    assert (train["subset"], train["files"], train["samples"]) == ("mine", "hard links", 24)
    assert train["source"]["root"] == str(organized_once)
    assert train["source"]["proof"]["kind"] == "md5"
    assert train["source"]["samples"] == 60


def test_a_finished_subset_is_left_alone_and_organize_finds_it_done(
    organized_once: Path, tmp_path: Path, run: Run
) -> None:
    to = tmp_path / "to"
    words = ["subset", _listed(tmp_path, *CLASSES), "--root", organized_once, "--to", to]
    first = run(*words)
    before = tree(to)
    again = run(*words)
    assert (again.returncode, again.stdout, tree(to)) == (0, first.stdout, before)
    assert run("organize", "--root", to).stdout == first.stdout


def test_a_subset_of_a_subset_is_a_dataset_too(
    organized_once: Path, tmp_path: Path, run: Run
) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    words = ["subset", _listed(tmp_path, *CLASSES), "--root", organized_once, "--to", once]
    assert run(*words).returncode == 0
    done = run("subset", _listed(tmp_path, CLASSES[0]), "--root", once, "--to", twice)
    assert done.returncode == 0, done.stderr
    assert set(_labels(twice, Split.TRAIN).values()) == {0}
    assert run("verify", "--root", twice, "--digests").returncode == 0


def test_copies_are_files_of_their_own(organized: Path, tmp_path: Path, run: Run) -> None:
    to = tmp_path / "to"
    words = ["subset", _listed(tmp_path, *CLASSES), "--root", organized, "--to", to, "--copy"]
    assert run(*words).returncode == 0
    for split in ("train", "val"):
        for path in organized.glob(f"{split}/*/*"):
            assert path.stat().st_nlink == 1
    shutil.rmtree(organized)
    assert run("verify", "--root", to, "--digests").returncode == 0


def test_the_room_for_copies_is_checked_before_any_is_made(
    organized_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to, listed = tmp_path / "to", _listed(tmp_path, *CLASSES)
    words = ["subset", str(listed), "--root", str(organized_once), "--to", str(to), "--copy"]
    monkeypatch.setattr("imnetprep.fs.free_bytes", lambda _folder: 5000)
    assert [cli.run([*words, *more]) for more in (["--dry-run"], [])] == [1, 1]
    assert not to.exists()
    plan = plan_subset(str(listed), Root(organized_once), Root(to), copy=True, jobs=None)
    rest = sum(plan.sizes.values()) - plan.sizes[Split.TRAIN] // 2
    monkeypatch.setattr(
        "imnetprep.split_from_folder.read_unfinished",
        lambda _path: [
            UnfinishedSplit("train", Stage.FOLDERS, "", 1, 1, plan.sizes[Split.TRAIN] // 2, False)
        ],
    )
    assert plan.needs.disk_bytes == rest, "what was copied before an interruption is there"


@pytest.mark.parametrize("copy", [[], ["--copy"]])
def test_a_split_that_was_listed_and_lacks_its_name_gets_it(
    copy: list[str], organized: Path, tmp_path: Path, run: Run
) -> None:
    """A kill just before the rename; links of such a run do not pass for copies."""
    to = tmp_path / "to"
    words = ["subset", _listed(tmp_path, *CLASSES), "--root", organized, "--to", to]
    assert run(*words).returncode == 0
    before = tree(to / "train")
    (to / "train").rename(to / ".organizing" / "train")
    if copy:
        assert f"{to / 'val'} hold hard links already" in run(*words, *copy).stderr
        shutil.rmtree(to / "val")
    done = run(*words, *copy)
    assert done.returncode == 0, done.stderr
    assert tree(to / "train") == before
    for name in before:
        assert (to / "train" / name).samefile(organized / "train" / name) is not bool(copy)
    assert run("verify", "--root", to, "--digests").returncode == 0


def test_where_no_link_can_be_made_the_hint_is_copies(
    organized_once: Path, tmp_path: Path, run: Run
) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == organized_once.stat().st_dev:
        pytest.skip("there is no second file system here")
    to = elsewhere / f"imnetprep-{os.getpid()}"
    try:
        words = ["subset", _listed(tmp_path, *CLASSES), "--root", organized_once, "--to", to]
        done = run(*words)
        assert done.returncode == 1
        assert "cannot be a hard link" in done.stderr and "Hint: --copy" in done.stderr
        assert not (to / "train").exists()
        assert run(*words, "--copy").returncode == 0
        assert run("verify", "--root", to, "--digests").returncode == 0
    finally:
        shutil.rmtree(to, ignore_errors=True)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["# ours", "n01440764", "n02124075"], "line 3: packed has no class 'n02124075'"),
        (["n01440764", "n01440764_10.JPEG"], "line 2: packed has no class 'n01440764_10.JPEG'"),
        (["n01440764_10.JPEG", "n01440764"], "line 2: 'n01440764' is neither"),
        (["", "n01440764_11.JPEG"], "line 2: 'n01440764_11.JPEG' is neither"),
        (["ILSVRC2012_val_00000001.JPEG"], "line 1: 'ILSVRC2012_val_00000001.JPEG' is neither"),
        (["../../etc/passwd"], "line 1: '../../etc/passwd' is neither"),
        (["# nothing"], "names nothing"),
    ],
)
def test_what_the_dataset_does_not_have_is_refused_by_line(
    lines: list[str], told: str, organized_once: Path, tmp_path: Path, run: Run
) -> None:
    to = tmp_path / "to"
    done = run("subset", _listed(tmp_path, *lines), "--root", organized_once, "--to", to)
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert not to.exists()


def test_a_list_nobody_knows_is_wrong_usage(organized_once: Path, tmp_path: Path, run: Run) -> None:
    done = run("subset", "imagenet101", "--root", organized_once, "--to", tmp_path / "to")
    assert done.returncode == 2
    assert "no list is called 'imagenet101'" in done.stderr and "imagenet100" in done.stderr
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    done = run("subset", tmp_path / "binary", "--root", organized_once, "--to", tmp_path / "to")
    assert done.returncode == 2
    assert "is not a text file" in done.stderr


@pytest.mark.parametrize("copy", [[], ["--copy"]])
def test_a_source_file_that_is_gone_or_changed_is_named(
    copy: list[str], organized: Path, tmp_path: Path, run: Run
) -> None:
    to = tmp_path / "to"
    words = ["subset", _listed(tmp_path, *CLASSES), "--root", organized, "--to", to, *copy]
    path = organized / "train" / CLASSES[0] / _train_names(organized, CLASSES[0])[3]
    body = path.read_bytes()
    path.unlink()
    done = run(*words)
    assert done.returncode == 4
    assert f"{path} is not there" in done.stderr
    path.write_bytes(body + b"x")
    done = run(*words)
    assert done.returncode == 4
    assert f"{path} has {len(body) + 1:,} bytes, not {len(body):,}" in done.stderr
    assert f"Hint: imnetprep verify --root {organized}\n" in done.stderr
    assert not (to / "train").exists()
    path.write_bytes(body)
    assert run(*words).returncode == 0
    assert run("verify", "--root", to, "--digests").returncode == 0


def test_a_copy_is_what_the_manifest_promises(organized: Path, tmp_path: Path, run: Run) -> None:
    to = tmp_path / "to"
    path = organized / "train" / CLASSES[0] / _train_names(organized, CLASSES[0])[3]
    path.write_bytes(bytes(path.stat().st_size))
    words = ["subset", _listed(tmp_path, *CLASSES), "--root", organized, "--to", to, "--copy"]
    done = run(*words)
    assert done.returncode == 4
    assert f"{path} has another xxh128" in done.stderr
    assert not (to / "train").exists()


def test_a_manifest_that_lacks_a_wanted_file_is_told(
    organized: Path, tmp_path: Path, run: Run
) -> None:
    name = _train_names(organized, CLASSES[0])[3]
    with open_manifest(organized / "manifest.db", write=True) as manifest:
        held = manifest.splits()[Split.TRAIN, Layout.IMAGEFOLDER]
        labels = range(len(manifest.synsets()))
        listed = [each for label in labels for each in manifest.samples(held, label)]
        manifest.drop_split(held.split, held.layout)
        manifest.add_split(*held[:2], (each for each in listed if each.name != name))
    words = ["subset", _listed(tmp_path, *CLASSES), "--root", organized]
    done = run(*words, "--to", tmp_path / "to")
    assert done.returncode == 4
    assert f"lists 11 train images of {CLASSES[0]}, not 12; missing: {name}" in done.stderr
    assert not (tmp_path / "to").exists()


def test_what_stands_in_the_new_root_is_not_mixed_with_it(
    organized_once: Path, tmp_path: Path, run: Run
) -> None:
    to = tmp_path / "to"
    words = ["--root", organized_once, "--to", to]
    mine = to / "val" / "mine.JPEG"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    done = run("subset", _listed(tmp_path, *CLASSES), *words)
    assert done.returncode == 1
    assert f"{to / 'val'} is there, and manifest.db knows nothing of it" in done.stderr
    assert mine.exists() and not (to / "train").exists()
    shutil.rmtree(to)
    stray = to / ".organizing" / "train" / CLASSES[0] / "stray.JPEG"
    stray.parent.mkdir(parents=True)
    stray.write_text("stray")
    done = run("subset", _listed(tmp_path, *CLASSES), *words)
    assert done.returncode == 1
    assert "holds what does not belong to the split: stray.JPEG" in done.stderr
    stray.unlink()
    assert run("subset", _listed(tmp_path, *CLASSES), *words).returncode == 0
    done = run("subset", _listed(tmp_path, CLASSES[0]), *words)
    assert done.returncode == 1
    assert "holds another dataset called packed-mine: " in done.stderr
    assert run("verify", "--root", to).returncode == 0


# SHA-256 of the lists as published, their lines sorted.
PUBLISHED = {
    "simclr-1pct": (
        "c03b85c3942f663c123a38b0d7a0eecb01730a1e96bd97384f0f3e60c6f3397c",
        12_811,
        1000,
    ),
    "simclr-10pct": (
        "d9bc1445836f11cbba81b22781ccafab15a3a6a31dd14e22e6cf7617e1ee3f68",
        128_116,
        1000,
    ),
    "imagenet100": (
        "5ee5db69d488bb799a286d8e181801c3d02798776c1ce9203e5450f64e086e07",
        126_689,
        100,
    ),
    "mini-imagenet": (
        "01be89a8f69ce3bf1f361d701c84ba5eb3b73993fdc56f30641256103dc45e57",
        128_779,
        100,
    ),
    "imagenette": ("bbf5739ac32da1a75c7279e5d0df6b14017de2a5f5e99a3ddba915ede171741b", 12_894, 10),
    "imagewoof": ("e0df343b334d68d2301c65f2c90bd60529d335360bd52130aff755513706bb34", 12_454, 10),
}


@pytest.mark.parametrize("name", BUILT_IN_LISTS)
def test_a_built_in_list_is_the_published_one(name: str) -> None:
    digest, train, classes = PUBLISHED[name]
    listed = read_list(name)
    lines = sorted(word for _, word in listed.entries)
    assert hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest() == digest
    chosen = subset_of(ILSVRC2012, listed)
    assert chosen.name == f"ilsvrc2012-{name}"
    assert (len(chosen.synsets), chosen.samples(Split.TRAIN)) == (classes, train)
    assert chosen.counts(Split.VAL) == (50,) * classes
    if name == "simclr-1pct":
        assert {*chosen.counts(Split.TRAIN)} == {12, 13}
        assert {*lines} < {word for _, word in read_list("simclr-10pct").entries}


def test_a_dataset_that_only_counts_its_files_can_be_cut_too(tmp_path: Path) -> None:
    tiny = load_dataset(str(DATASETS / "tiny10.toml"))

    def cut(*lines: str) -> Dataset:
        return subset_of(tiny, read_list(str(_listed(tmp_path, *lines))))

    wnids = [synset.wnid for synset in tiny.synsets]
    classes = cut(wnids[7], wnids[2])
    assert classes.counts(Split.TRAIN) == (500, 500)
    assert classes.counts(Split.VAL) == (50, 50)
    assert classes.label_of(Split.TRAIN, f"{wnids[7]}_3.JPEG") == 1
    assert classes.label_of(Split.TRAIN, f"{wnids[0]}_3.JPEG") is None
    files = cut(f"{wnids[7]}_3.JPEG", f"{wnids[2]}_0.JPEG", f"{wnids[2]}_499.JPEG")
    assert files.counts(Split.TRAIN) == (2, 1)
    assert files.counts(Split.VAL) == (50, 50)
    assert files.label_of(Split.TRAIN, f"{wnids[7]}_3.JPEG") == 1
    assert files.label_of(Split.TRAIN, f"{wnids[7]}_4.JPEG") is None


# Runs the command, and kills it when all of a split is made and is to get its name.
_KILLED_BEFORE_THE_NAME = """
import os, signal, sys
from imnetprep import cli
from imnetprep.organizing import publish

publish._rename = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
sys.exit(cli.run(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("first", "second", "are_links"),
    [("links", "copies", False), ("links", "archives", False), ("archives", "links", True)],
)
def test_what_was_made_of_something_else_never_gets_the_name(
    first: str,
    second: str,
    are_links: bool,
    organized_once: Path,
    packed: Path,
    tmp_path: Path,
    run: Run,
) -> None:
    to = tmp_path / "to"
    words: dict[str, list[object]] = {
        "links": ["--root", organized_once],
        "copies": ["--root", organized_once, "--copy"],
        "archives": ["--archives", packed.parent, "--dataset", packed],
    }
    subset = ["subset", _listed(tmp_path, *CLASSES), "--to", to]
    script = [sys.executable, "-c", _KILLED_BEFORE_THE_NAME, *map(str, subset + words[first])]
    killed = subprocess.run(script, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (to / ".organizing" / "train").exists()
    done = run(*subset, *words[second])
    assert done.returncode == 0, done.stderr
    assert {path.stat().st_nlink > 1 for path in (to / "train").glob("*/*")} == {are_links}


def test_a_root_whose_path_is_no_text_becomes_a_subset(
    organized_once: Path, tmp_path: Path, run: Run
) -> None:
    root = tmp_path / os.fsdecode(b"r\xff")
    try:
        root.symlink_to(organized_once)
    except OSError:
        pytest.skip("this file system has names of text only")
    words = ["subset", _listed(tmp_path, *CLASSES), "--root", root, "--to", tmp_path / "to"]
    assert run(*words).returncode == 0


@pytest.mark.parametrize("source", ["root", "archives"])
def test_another_list_after_an_interruption_is_told_what_to_remove_and_what_that_loses(
    source: str, organized_once: Path, packed: Path, tmp_path: Path, run: Run
) -> None:
    to, words = tmp_path / "to", ["--root", organized_once, "--to"]
    if source == "archives":
        words = ["--archives", packed.parent, "--dataset", packed, "--to"]
    subset = ["subset", _listed(tmp_path, *CLASSES), *words, to]
    script = [sys.executable, "-c", _KILLED_BEFORE_THE_NAME, *map(str, subset)]
    assert subprocess.run(script, check=False, capture_output=True).returncode == -signal.SIGKILL
    _listed(tmp_path, CLASSES[0])
    refused = run(*subset)
    assert refused.returncode == 1 and "holds another dataset called packed-mine" in refused.stderr
    hint = refused.stderr.splitlines()[-1].removeprefix("Hint: take another --to; or ")
    remove, again = hint.split("; ")
    assert again == "then run the same command again (that loses 24 images of an unfinished split)"
    subprocess.run(remove, shell=True, check=True)
    done = run(*subset)
    assert done.returncode == 0, done.stderr
    assert set(_labels(to, Split.TRAIN).values()) == {0}
    assert run("verify", "--root", to, "--digests").returncode == 0
