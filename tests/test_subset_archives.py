"""Part of a dataset straight from its archives: the same root, most of the archive never read."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Split, load_dataset
from imnetprep.manifest import create_manifest, open_manifest
from imnetprep.sources.seeder import make_torrent
from imnetprep.synthetic import pack_dataset
from tests.conftest import TRAIN, VAL, Run, command, receipt_of, spoil, tree
from tests.packings import Files, picture, write_dataset, write_tar, write_zip
from tests.servers import WebServer, web_served

PROOFS = ("torrent", "md5", "none")
# Of the fifty of `packed50`.
CLASSES = ["n01443537", "n01601694"]


@pytest.fixture(scope="module")
def packed50(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Fifty classes in the published form; its definition by what it has to prove them with."""
    folder = tmp_path_factory.mktemp("packed50")
    whole = pack_dataset(folder, classes=50, train_per_class=8, val_per_class=2, image_bytes=6000)
    lines = whole.read_text().splitlines()
    plain = [line for line in lines if not line.startswith("md5")]
    named = [
        line + f'\ntorrent = "{line[8:-1]}.torrent"' * line.endswith('.tar"') for line in lines
    ]
    for name in (TRAIN, VAL):
        (folder / f"{name}.torrent").write_bytes(make_torrent(folder / name, piece_bytes=16384))
    for kind, text in (("torrent", named), ("md5", lines), ("none", plain)):
        (folder / f"{kind}.toml").write_text("\n".join(text))
    return {kind: folder / f"{kind}.toml" for kind in PROOFS}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, packed50: dict[str, Path], run: Run) -> Path:
    """An organized root of it, to compare with."""
    root, toml = tmp_path_factory.mktemp("whole") / "root", packed50["md5"]
    done = run("organize", "--root", root, "--dataset", toml, "--archives", toml.parent)
    assert done.returncode == 0, done.stderr
    return root


def _listed(folder: Path, *lines: str) -> Path:
    path = folder / "mine.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def _chosen(whole: Path, listed: Path, to: Path, run: Run) -> dict[str, bytes]:
    """The tree of the subset that is made from the organized root."""
    assert run("subset", listed, "--root", whole, "--to", to).returncode == 0
    return {**_splits(to), **_manifest_of(to)}


def _splits(root: Path) -> dict[str, bytes]:
    return {f"{each}/{name}": body for each in Split for name, body in tree(root / each).items()}


def _manifest_of(root: Path) -> dict[str, bytes]:
    """What the manifest says: the dataset, and a digest of each split's samples."""
    with open_manifest(root / "manifest.db") as manifest:
        dataset, splits = manifest.dataset(), manifest.splits().values()
        samples = {f"{each.split} samples": manifest.fingerprint(each).encode() for each in splits}
        bodies = {f"dataset {name}": body for name, body in dataset.definition().items()}
    proves = ("toml", "torrent")  # in one of the definitions there is more of it
    return samples | {name: body for name, body in bodies.items() if not name.endswith(proves)}


def _asked_bytes(web: WebServer, name: str) -> int:
    spans = [span for path, span in web.asked if span and path == f"/{name}"]
    ends = [span.removeprefix("bytes=").split("-") for span in spans]
    return sum(int(end) - int(start) + 1 for start, end in ends)


@pytest.mark.parametrize("proof", PROOFS)
@pytest.mark.parametrize("files", [False, True])
def test_what_comes_of_the_archives_is_what_comes_of_a_whole_root(
    files: bool, proof: str, packed50: dict[str, Path], whole: Path, tmp_path: Path, here: Run
) -> None:
    names = [path.name for wnid in CLASSES for path in (whole / "train" / wnid).iterdir()]
    listed = _listed(tmp_path, *(sorted(names)[3:11] if files else CLASSES))
    toml = packed50[proof]
    words = ["--archives", toml.parent, "--dataset", toml, "--to", tmp_path / "to"]
    done = here("subset", listed, *words)
    assert done.returncode == 0, done.stderr
    made = {**_splits(tmp_path / "to"), **_manifest_of(tmp_path / "to")}
    assert made == _chosen(whole, listed, tmp_path / "of-root", here)
    assert here("verify", "--root", tmp_path / "to", "--digests").returncode == 0
    splits = receipt_of(tmp_path / "to")["splits"]
    train, val = (json.loads(json.dumps(splits[split])) for split in ("train", "val"))
    assert (train["archive"], train["subset"]) == (TRAIN, "mine")
    assert train["source"] == {"dataset": "packed", "place": str(toml.parent)}
    # All of the flat archive is read, so its digest proves it.
    assert val["proof"]["kind"] == proof
    assert train["proof"]["kind"] == ("torrent" if proof == "torrent" else "none")
    told = "only part of it was read, and its md5 covers the whole file"
    assert (train["proof"].get("why") == told) is (proof == "md5")
    assert (f"{TRAIN} is not verified: {told}" in done.stderr) is (proof == "md5")
    assert (train["proof"].get("of") == "what was read") is (proof == "torrent")


@pytest.mark.parametrize("proof", ["torrent", "md5"])
def test_a_web_server_is_asked_for_the_chosen_classes_and_little_else(
    proof: str, packed50: dict[str, Path], whole: Path, tmp_path: Path, here: Run
) -> None:
    listed, to = _listed(tmp_path, *CLASSES), tmp_path / "to"
    with web_served(packed50[proof].parent) as web:
        words = ["--archives", web.address, "--dataset", packed50[proof]]
        done = here("subset", listed, *words, "--split", "train", "--root", to)
        sent_bytes = _asked_bytes(web, TRAIN)
    assert done.returncode == 0, done.stderr
    chosen = tree(to / "train")
    assert chosen == {k: v for k, v in tree(whole / "train").items() if k[:9] in CLASSES}
    # The bodies with their padding, a header a class, and pieces where two classes meet.
    assert sent_bytes < 1.3 * sum(map(len, chosen.values())) + 50 * 512 + 6 * 16384
    assert sent_bytes < (packed50[proof].parent / TRAIN).stat().st_size / 10


@pytest.mark.parametrize("proof", ["torrent", "md5"])
def test_a_pipe_is_read_whole_and_so_is_proved(
    proof: str, packed50: dict[str, Path], whole: Path, tmp_path: Path, run: Run
) -> None:
    toml, to = packed50[proof], tmp_path / "to"
    words = ["subset", _listed(tmp_path, *CLASSES), "--archives", "-", "--dataset", toml]
    with (toml.parent / TRAIN).open("rb") as archive:
        done = run(*words, "--split", "train", "--to", to, stdin=archive)
    assert done.returncode == 0, done.stderr
    assert {k[:9] for k in tree(to / "train")} == set(CLASSES)
    assert json.dumps(receipt_of(to)["splits"]["train"]).count(f'"kind": "{proof}"') == 1
    last = Path(shutil.copy(toml.parent / TRAIN, tmp_path))
    spoil(last, last.stat().st_size - 20_000)  # in a class that is not chosen
    with last.open("rb") as archive:
        done = run(*words, "--split", "train", "--to", tmp_path / "other", stdin=archive)
    assert done.returncode == 4, done.stderr
    assert not (tmp_path / "other" / "train").exists()


def test_an_archive_that_was_proved_before_proves_the_part(
    packed50: dict[str, Path], tmp_path: Path, here: Run
) -> None:
    """By the receipt of the root in which it lies; that root says which dataset it is, too."""
    toml, root, to = packed50["md5"], tmp_path / "root", tmp_path / "to"
    (root / "archives").mkdir(parents=True)
    create_manifest(root / "manifest.db", load_dataset(str(toml)))
    shutil.copy(toml.parent / TRAIN, root / "archives")
    assert here("verify-archives", "--root", root).returncode == 0
    words = ["subset", _listed(tmp_path, *CLASSES), "--archives", root / "archives"]
    for to, kind in ((tmp_path / "to", "md5"), (tmp_path / "touched", "none")):
        done = here(*words, "--split", "train", "--to", to)
        assert done.returncode == 0, done.stderr
        assert f'"kind": "{kind}"' in json.dumps(receipt_of(to)["splits"]["train"])
        assert receipt_of(to)["archives"] == {}
        os.utime(root / "archives" / TRAIN)


def test_what_was_read_in_part_is_not_noted_as_proved(
    packed50: dict[str, Path], tmp_path: Path, here: Run
) -> None:
    toml, to = packed50["torrent"], tmp_path / "to"
    (to / "archives").mkdir(parents=True)
    for name in (TRAIN, VAL):
        shutil.copy(toml.parent / name, to / "archives")
    words = ["subset", _listed(tmp_path, *CLASSES), "--archives", to / "archives"]
    done = here(*words, "--dataset", toml, "--root", to)
    assert done.returncode == 0, done.stderr
    assert set(receipt_of(to)["archives"]) == {VAL}  # that one was read whole
    assert here(*words, "--dataset", toml, "--root", to).stdout == done.stdout


def test_files_of_every_class_are_proved_with_the_whole(
    packed50: dict[str, Path], whole: Path, tmp_path: Path, here: Run
) -> None:
    toml, to = packed50["md5"], tmp_path / "to"
    files = [min(path.name for path in each.iterdir()) for each in (whole / "train").iterdir()]
    words = ["subset", _listed(tmp_path, *files), "--archives", toml.parent, "--dataset", toml]
    assert here(*words, "--split", "train", "--to", to).returncode == 0
    assert sorted(Path(name).name for name in tree(to / "train")) == sorted(files)
    assert '"kind": "md5"' in json.dumps(receipt_of(to)["splits"]["train"])


def test_wrong_bytes_are_refused_where_they_are_read_and_nowhere_else(
    packed50: dict[str, Path], tmp_path: Path, here: Run
) -> None:
    toml, folder, to = packed50["torrent"], tmp_path / "archives", tmp_path / "to"
    shutil.copytree(toml.parent, folder)
    body = (folder / TRAIN).read_bytes()
    words = ["subset", _listed(tmp_path, *CLASSES), "--archives", folder, "--dataset", toml]
    words += ["--split", "train", "--to", to]
    spoil(folder / TRAIN, body.index(f"{CLASSES[1]}_".encode()) + 700)
    done = here(*words)
    assert done.returncode == 4
    assert "is not what torrent" in done.stderr
    assert not (to / "train").exists()
    (folder / TRAIN).write_bytes(body)
    # In the class after the next, some pieces on.
    spoil(folder / TRAIN, body.index(b"n01616318.tar") + 20_000)
    assert here(*words).returncode == 0
    assert {name[:9] for name in tree(to / "train")} == set(CLASSES)


@pytest.mark.parametrize("proof", ["torrent", "none"])
def test_an_archive_that_is_not_the_one_makes_nothing(
    proof: str, packed50: dict[str, Path], tmp_path: Path, here: Run
) -> None:
    other = pack_dataset(
        tmp_path / "other", classes=50, train_per_class=8, image_bytes=6000, seed=1
    )
    words = ["subset", _listed(tmp_path, *CLASSES), "--archives", other.parent, "--split", "train"]
    done = here(*words, "--dataset", packed50[proof], "--to", tmp_path / "to")
    assert done.returncode == 4
    assert not (tmp_path / "to" / "train").exists()


def _nested(folder: Path, classes: dict[str, list[str]]) -> Path:
    """The archive of a dataset that counts two of each of `a` to `d`; returns its definition."""
    folder.mkdir()
    inner = {}
    for wnid, names in classes.items():
        files = {name: picture(name) for name in names}
        inner[f"{wnid}.tar"] = write_tar(folder / "inner", files, mode="w").read_bytes()
    write_tar(folder / "mine.tar", inner, mode="w")
    return write_dataset(
        folder,
        'name = "four"\nsynsets = "s.tsv"\n[train]\nfile_name = "{wnid}_{number}.jpg"\n'
        'samples = 8\nnames = "n.txt"\n[[archives]]\nname = "mine.tar"\n'
        'form = "tar-of-tars"\nsplit = "train"\n',
        [("s.tsv", "wnid\na\nb\nc\nd\n"), ("n.txt", "a 1 1\nb 1 1\nc 1 1\nd 1 1\n")],
    )


RIGHT = {wnid: [f"{wnid}_1.jpg", f"{wnid}_2.jpg"] for wnid in "abcd"}


@pytest.mark.parametrize(
    ("changed", "listed", "told"),
    [
        ({"c": ["c_1.jpg", "c_2.jpg", "c_3.jpg"]}, "c", "'c_3.jpg', which four does not have"),
        ({"c": ["c_1.jpg", "c_2.jpg", "a_1.jpg"]}, "c", "'a_1.jpg', which four does not have"),
        ({"c": ["c_1.jpg", "c_3.jpg"]}, "c_1.jpg", "'c_3.jpg', which four does not have"),
        ({"c": ["c_2.jpg"]}, "c_1.jpg", "c has 0 images, not 1; missing: c_1.jpg"),
        ({"c": []}, "c", "c has 0 images, not 2"),
        ({"c": None}, "c", "c has 0 images, not 2"),
        ({"e": ["e_1.jpg"]}, "c", "'e.tar', which four does not have"),
        ({"a": ["a_9.jpg"]}, "c", None),  # not read
    ],
)
def test_what_neither_the_list_nor_the_dataset_has_is_refused(
    changed: dict[str, list[str] | None], listed: str, told: str | None, tmp_path: Path, here: Run
) -> None:
    classes = {k: names for k, names in (RIGHT | changed).items() if names is not None}
    toml, to = _nested(tmp_path / "four", classes), tmp_path / "to"
    words = ["--archives", toml.parent, "--dataset", toml, "--to", to]
    done = here("subset", _listed(tmp_path, listed), *words)
    assert done.returncode == (0 if told is None else 4), done.stderr
    assert told is None or told in done.stderr
    assert "four-mine" not in done.stderr
    assert (to / "train").exists() is (told is None)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"a": ["a_9.jpg"]}, "'a_9.jpg', which four does not have"),
        ({"c": None}, "c has 0 images, not 2"),
        ({}, None),
    ],
)
def test_in_a_pipe_every_name_is_looked_at(
    changed: dict[str, list[str] | None], told: str | None, tmp_path: Path, run: Run
) -> None:
    classes = {k: names for k, names in (RIGHT | changed).items() if names is not None}
    toml, to = _nested(tmp_path / "four", classes), tmp_path / "to"
    words = ["--archives", "-", "--dataset", toml, "--to", to]
    with (toml.parent / "mine.tar").open("rb") as archive:
        done = run("subset", _listed(tmp_path, "c"), *words, stdin=archive)
    assert done.returncode == (0 if told is None else 4), done.stderr
    assert told is None or told in done.stderr
    assert (to / "train").exists() is (told is None)


def _paths(folder: Path, form: str) -> tuple[Path, Files]:
    """A dataset whose members have paths, both splits in one archive, and its files."""
    files = {
        f"top/{split}/{wnid}/{wnid}_{at}.jpg": picture(f"{split} {wnid} {at}")
        for wnid in "abc"
        for split in ("train", "val")
        for at in ((1, 2) if split == "train" else (3,))
    }
    text = 'name = "paths"\nsynsets = "s.tsv"\n'
    for split, samples in (("train", 2), ("val", 1)):
        text += f'[{split}]\nfile_name = "{{wnid}}_{{number}}.jpg"\nsamples = {3 * samples}\n'
        text += f'names = "{split}.txt"\n'
    text += f'[[archives]]\nname = "paths.bin"\nform = "{form}"\n'
    text += "".join(
        f'members.{each} = "top/{each}/{{wnid}}/{{name}}"\n' for each in ("train", "val")
    )
    lists = [("s.tsv", "wnid\na\nb\nc\n"), ("train.txt", "a 1 1\nb 1 1\nc 1 1\n")]
    return write_dataset(folder, text, [*lists, ("val.txt", "a 3\nb 3\nc 3\n")]), files


@pytest.mark.parametrize("form", ["tar.gz", "tar", "zip"])
def test_paths_in_one_archive_for_both_splits(form: str, tmp_path: Path, here: Run) -> None:
    toml, files = _paths(tmp_path / "paths", form)
    archive, to = toml.parent / "paths.bin", tmp_path / "to"

    def write(files: Files) -> None:
        if form == "zip":
            write_zip(archive, files)
        else:
            write_tar(archive, files, mode="w" if form == "tar" else "w:gz")

    write(files)
    words = ["subset", _listed(tmp_path, "c_2.jpg", "a_1.jpg"), "--dataset", toml]
    words += ["--archives", toml.parent]
    done = here(*words, "--to", to)
    assert done.returncode == 0, done.stderr
    names = ["train/a/a_1.jpg", "train/c/c_2.jpg", "val/a/a_3.jpg", "val/c/c_3.jpg"]
    assert _splits(to) == {name: files[f"top/{name}"] for name in names}
    assert here("verify", "--root", to, "--digests").returncode == 0
    write(files | {"top/train/b/b_9.jpg": b"of nobody"})
    done = here(*words, "--to", tmp_path / "other")
    assert done.returncode == 4
    assert "'top/train/b/b_9.jpg', which paths does not have" in done.stderr


def test_of_a_zip_what_lies_elsewhere_is_not_read(tmp_path: Path, here: Run) -> None:
    toml, files = _paths(tmp_path / "paths", "zip")
    beside = {"beside": bytes(66 << 20)}  # more than a range
    last = {name: files.pop(name) for name in list(files) if "/c/" in name}
    write_zip(toml.parent / "paths.bin", files | beside | last)
    with web_served(toml.parent) as web:
        words = ["--archives", web.address, "--dataset", toml, "--to", tmp_path / "to"]
        done = here("subset", _listed(tmp_path, "c"), *words)
        sent_bytes = _asked_bytes(web, "paths.bin")
    assert done.returncode == 0, done.stderr
    assert _splits(tmp_path / "to") == {k.removeprefix("top/"): body for k, body in last.items()}
    assert sent_bytes < 1 << 20


def _kill_when(words: list[str], *, folders: int, under: Path) -> None:
    """Kill the command when so many class folders are there."""
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(under.glob("*"))) < folders:
        pass
    process.kill()
    assert process.wait() == -9


def test_killed_it_goes_on_and_reads_no_class_twice(
    packed50: dict[str, Path], whole: Path, tmp_path: Path, here: Run
) -> None:
    toml, to = packed50["none"], tmp_path / "to"
    wnids = sorted(path.name for path in (whole / "train").iterdir())[5:35]
    with web_served(toml.parent) as web:
        words = ["subset", _listed(tmp_path, *wnids), "--archives", web.address, "--jobs", "1"]
        words += ["--dataset", toml, "--to", to, "--split", "train"]
        web.wait_s = 0.02  # slow enough for the journal
        _kill_when(command(*words), folders=25, under=to / ".organizing" / "train")
        assert not (to / "train").exists()
        web.wait_s = 0
        web.asked.clear()
        done = here(*words)
        sent_bytes = _asked_bytes(web, TRAIN)
    assert done.returncode == 0, done.stderr
    chosen = tree(to / "train")
    assert chosen == {k: v for k, v in tree(whole / "train").items() if k[:9] in wnids}
    assert sent_bytes < 0.9 * sum(map(len, chosen.values()))
    before = tree(to)
    assert here(*words).stdout == done.stdout
    assert tree(to) == before


def test_what_links_began_is_not_written_into(
    packed50: dict[str, Path], whole: Path, tmp_path: Path, here: Run
) -> None:
    """Begun from archives, then from a root by links, then from archives: no link is followed."""
    root, to = Path(shutil.copytree(whole, tmp_path / "root")), tmp_path / "to"
    wnids = sorted(path.name for path in (whole / "train").iterdir())[5:35]
    listed, growing = _listed(tmp_path, *wnids), to / ".organizing" / "train"
    with web_served(packed50["md5"].parent) as web:
        words = ["subset", listed, "--archives", web.address, "--jobs", "1", "--split", "train"]
        words += ["--dataset", packed50["md5"], "--to", to]
        web.wait_s = 0.02
        _kill_when(command(*words), folders=5, under=growing)
        web.wait_s = 0
        next((root / "train" / wnids[-1]).iterdir()).unlink()
        assert here("subset", listed, "--root", root, "--to", to).returncode == 4
        assert any(path.stat().st_nlink == 2 for path in growing.glob("*/*"))
        done = here(*words)
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_nlink == 1 for path in to.glob("train/*/*"))
    assert tree(to / "train") == {k: v for k, v in tree(whole / "train").items() if k[:9] in wnids}


def test_another_list_wants_another_root(
    packed50: dict[str, Path], tmp_path: Path, here: Run
) -> None:
    toml, to = packed50["md5"], tmp_path / "to"
    words = ["--archives", toml.parent, "--dataset", toml, "--to", to, "--split", "val"]
    assert here("subset", _listed(tmp_path, *CLASSES), *words).returncode == 0
    done = here("subset", _listed(tmp_path, CLASSES[0]), *words)
    assert done.returncode == 1
    assert "holds another dataset called packed-mine" in done.stderr
    done = here("subset", _listed(tmp_path, "n09999999"), *words)
    assert done.returncode == 1
    assert "line 1: 'n09999999' is neither a class nor a train file of packed" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--archives", "x", "--to", "to", "--copy"], "--copy cannot be used"),
        (["--archives", "x", "--to", "to", "--root", "y"], "--root cannot be used"),
        (["--to", "to", "--split", "val"], "--split cannot be used: all that --root holds"),
        ([], "--to is missing"),
        (["--archives", "-", "--to", "to"], "a pipe carries one archive"),
    ],
)
def test_words_that_do_not_go_together_are_told(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    done = here("subset", "imagenette", *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert not list(tmp_path.iterdir())
