"""Shards: what the webdataset library reads, the same bytes every time, whole or not at all."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Layout, Split
from imnetprep.digests import xxh128
from imnetprep.images import Resize, resized_jpeg
from imnetprep.manifest import open_manifest
from tests.conftest import VAL, Run, command, tree
from tests.drawn import draw_root
from tests.opened import open_in

WORDS = ["--layout", "webdataset", "--shard-size", 7]


@pytest.fixture(scope="module")
def sharded_once(tmp_path_factory: pytest.TempPathFactory, organized_once: Path, run: Run) -> Path:
    """A root with both splits in both layouts; not to be changed."""
    root = Path(shutil.copytree(organized_once, tmp_path_factory.mktemp("sharded") / "root"))
    done = run("organize", "--root", root, *WORDS, "--jobs", 1)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def sharded(tmp_path: Path, sharded_once: Path) -> Path:
    """The same to do anything to."""
    return Path(shutil.copytree(sharded_once, tmp_path / "root"))


def _listed(root: Path) -> dict[str, tuple[int, bytes]]:
    """Label and body of each training image, by its name, as the class folders have them."""
    with open_manifest(root / "manifest.db") as manifest:
        split = manifest.splits()[Split.TRAIN, Layout.IMAGEFOLDER]
        return {
            sample.name: (label, (root / "train" / wnid / sample.name).read_bytes())
            for label, wnid in enumerate(synset.wnid for synset in manifest.synsets())
            for sample in manifest.samples(split, label)
        }


def test_the_webdataset_library_reads_names_labels_and_bytes(sharded_once: Path) -> None:
    # 60 images, 7 in each of nine shards.
    read = list(open_in("webdataset", sharded_once, **{"000002": "000008"}))
    assert [sample["__key__"] for sample in read] == [f"{key:08}" for key in range(60)]
    found = {
        json.loads(sample["json"])["name"]: (int(sample["cls"]), sample["jpg"]) for sample in read
    }
    assert found == _listed(sharded_once)
    labels = [int(sample["cls"]) for sample in read]
    assert labels != sorted(labels)


def test_the_seed_and_the_shard_size_decide_and_the_jobs_do_not(
    organized_once: Path, sharded_once: Path, tmp_path: Path, run: Run
) -> None:
    made = []
    for number, words in enumerate((["--jobs", 4], ["--seed", 1], ["--shard-size", 60])):
        root = Path(shutil.copytree(organized_once, tmp_path / f"{number}"))
        done = run("organize", "--root", root, *WORDS, "--split", "train", *words)
        assert done.returncode == 0, done.stderr
        made.append(tree(root / "shards" / "train"))
    assert made[0] == tree(sharded_once / "shards" / "train")
    assert made[1].keys() == made[0].keys()
    assert made[1]["train-000000.tar"] != made[0]["train-000000.tar"]
    assert list(made[2]) == ["index.json", "train-000000.tar"]


def test_killed_in_the_middle_it_goes_on_by_shard(
    organized: Path, sharded_once: Path, run: Run
) -> None:
    words = ["organize", "--root", organized, *WORDS, "--split", "train", "--jobs", 2]
    growing, killed = organized / ".organizing/shards/train", 0
    kept: dict[str, int] = {}
    for wanted in (2, 5, 8):
        process = subprocess.Popen(command(*words), stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(growing.glob("*.tar"))) < wanted:
            time.sleep(0.0005)
        process.kill()
        killed += process.wait() == -9
        assert not (organized / "shards").exists()
        for name, inode in kept.items():
            assert (growing / name).stat().st_ino == inode, "made a second time"
        kept = {}
        if (organized / ".organizing/journal.db").exists() and growing.exists():
            kept = {path.name: path.stat().st_ino for path in _journalled(organized, growing)}
    assert killed >= 2
    (growing / ".train-000000.tar.1.tmp").write_bytes(b"of a worker that was killed")
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert tree(organized / "shards/train") == tree(sharded_once / "shards/train")
    assert not growing.exists()
    verified = run("verify", "--root", organized, "--layout", "webdataset", "--digests")
    assert "0 findings" not in verified.stdout  # val has no shards
    assert verified.stdout.startswith("missing-split: val")


def _journalled(root: Path, growing: Path) -> list[Path]:
    from imnetprep.organizing.journal import Stage, open_journal

    with open_journal(root / ".organizing/journal.db", Stage.SHARDS) as journal:
        return [growing / shard.name for shard in journal.shards(Split.TRAIN)]


def test_shards_that_only_lack_their_manifest_and_receipt_get_them(
    organized: Path, sharded_once: Path, run: Run
) -> None:
    receipt = (organized / "receipt.json").read_text()
    (organized / "receipt.json").write_text("[")
    words = ["organize", "--root", organized, *WORDS, "--split", "train", "--jobs", 1]
    assert run(*words).returncode == 1  # as if it were killed before the receipt
    with open_manifest(organized / "manifest.db", write=True) as manifest:
        manifest.drop_split(Split.TRAIN, Layout.WEBDATASET)  # and before the manifest
    (organized / "receipt.json").write_text(receipt)
    shutil.rmtree(organized / "train" / "n01440764")  # nothing is read again
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert tree(organized / "shards/train") == tree(sharded_once / "shards/train")
    told = json.loads((organized / "receipt.json").read_text())["splits"]["shards/train"]
    assert (told["samples"], told["made_from"], told["seed"]) == (60, "imagefolder", 0)
    done = run("verify", "--root", organized, "--layout", "webdataset", "--split", "train")
    assert done.returncode == 0, done.stdout


def test_other_words_do_not_go_on_with_what_has_grown(
    organized: Path, sharded_once: Path, run: Run
) -> None:
    victim = min((organized / "train").rglob("*.JPEG"))
    body = victim.read_bytes()
    victim.write_bytes(body[:-1])
    words = ["organize", "--root", organized, "--split", "train", "--jobs", 1]
    done = run(*words, *WORDS, "--seed", 3)
    assert done.returncode == 4
    assert victim.name in done.stderr and "xxh128" in done.stderr
    victim.write_bytes(body)
    assert run(*words, *WORDS).returncode == 0
    assert tree(organized / "shards/train") == tree(sharded_once / "shards/train")


@pytest.mark.parametrize("words", [["--seed", 5], ["--shard-size", 8], ["--resize", 64]])
def test_other_shards_than_those_there_are_refused(
    sharded_once: Path, run: Run, words: list[object]
) -> None:
    before = tree(sharded_once)
    done = run("organize", "--root", sharded_once, *WORDS, *words)
    assert done.returncode == 1
    assert "holds other shards: of 7 samples, seed 0, images as published" in done.stderr
    assert tree(sharded_once) == before


def test_shards_that_are_there_are_left_alone(sharded_once: Path, run: Run) -> None:
    before = tree(sharded_once)
    done = run("organize", "--root", sharded_once, *WORDS, "--json")
    assert [json.loads(line)["layout"] for line in done.stdout.splitlines()] == ["webdataset"] * 2
    assert tree(sharded_once) == before


def test_a_split_that_is_not_organized_and_a_folder_in_the_way_are_told(
    organized: Path, tmp_path: Path, run: Run
) -> None:
    (organized / "shards/train").mkdir(parents=True)
    done = run("organize", "--root", organized, *WORDS)
    assert (done.returncode, "knows nothing of it" in done.stderr) == (1, True)
    (organized / "shards/train").rmdir()
    shutil.rmtree(organized / "val")
    done = run("organize", "--root", organized, *WORDS)
    assert f"{organized / 'archives' / VAL} is not there" in done.stderr


def test_dry_run_makes_no_shards(organized: Path, run: Run) -> None:
    before = tree(organized)
    done = run("organize", "--root", organized, *WORDS, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "train shards: of 60 images" in done.stdout and "needs" in done.stdout
    assert tree(organized) == before


def test_with_two_layouts_a_verb_asks_for_one(sharded_once: Path, run: Run) -> None:
    done = run("verify", "--root", sharded_once)
    assert done.returncode == 2
    assert f"Error: {sharded_once} holds train as imagefolder and as webdataset" in done.stderr
    assert "Hint: --layout imagefolder or --layout webdataset" in done.stderr
    for layout in ("imagefolder", "webdataset"):
        assert run("verify", "--root", sharded_once, "--layout", layout).returncode == 0


def test_the_only_layout_needs_no_name(sharded: Path, run: Run) -> None:
    for split in ("train", "val"):
        shutil.rmtree(sharded / split)
    done = run("verify", "--root", sharded, "--digests")
    assert (done.returncode, done.stdout[:10]) == (0, "0 findings"), done.stdout


def _shard(root: Path) -> Path:
    return root / "shards/train/train-000003.tar"


def _flip_an_image(root: Path) -> str:
    return _flip(root, 512 + 700)


def _flip_a_name(root: Path) -> str:
    _flip(root, 3)
    return "misplaced: shards/train/train-000003.tar: "


def _flip(root: Path, at: int) -> str:
    body = bytearray(_shard(root).read_bytes())
    body[at] ^= 1
    _shard(root).write_bytes(body)
    return "digest: shards/train/train-000003.tar: n"


def _change_a_label(root: Path) -> str:
    body = _shard(root).read_bytes()
    at = body.index(b".cls") // 512 * 512 + 512
    _shard(root).write_bytes(body[:at] + b"9" + body[at + 1 :])
    return "is not there under key 00000021 with label"


def _cut(root: Path) -> str:
    body = _shard(root).read_bytes()
    _shard(root).write_bytes(body[:-10240])
    return f"size: shards/train/train-000003.tar has {len(body) - 10240:,} bytes, not"


def _remove(root: Path) -> str:
    _shard(root).unlink()
    return "missing: shards/train/train-000003.tar is not there, with its 7 samples"


def _swap(root: Path) -> str:
    shutil.copy(_shard(root).with_name("train-000004.tar"), _shard(root))
    return "is not there under key 00000021"


def _add(root: Path) -> str:
    shutil.copy(_shard(root), _shard(root).with_name("train-000009.tar"))
    return "extra: shards/train/train-000009.tar"


def _spoil_the_index(root: Path) -> str:
    index = root / "shards/train/index.json"
    index.write_text(index.read_text().replace('"samples": 7', '"samples": 6', 1))
    return "index: shards/train/index.json lists 6 samples of shards/train/train-000000.tar, not 7"


def _spoil_a_digest_of_the_index(root: Path) -> str:
    path = root / "shards/train/index.json"
    index = json.loads(path.read_text())
    index["shards"][2]["xxh128"] = "0" * 32
    path.write_text(json.dumps(index))
    return "digest: shards/train/train-000002.tar its xxh128 is not 0000"


def _cut_the_index(root: Path) -> str:
    index = root / "shards/train/index.json"
    index.write_text(index.read_text()[:100])
    return "index: shards/train/index.json"


def _nest_the_index(root: Path) -> str:
    (root / "shards/train/index.json").write_text("[" * 100_000)
    return "index: shards/train/index.json"


def _count_without_end(root: Path) -> str:
    index = root / "shards/train/index.json"
    index.write_text(index.read_text().replace('"samples": 7', '"samples": Infinity', 1))
    return "index: shards/train/index.json"


def _spoil_a_name_of_the_index(root: Path) -> str:
    index = root / "shards/train/index.json"
    index.write_text(index.read_text().replace("train-000001.tar", "\\ud800.tar", 1))
    return "index: shards/train/index.json"


def _spoil_a_shown_digest_of_the_index(root: Path) -> str:
    path = root / "shards/train/index.json"
    index = json.loads(path.read_text())
    index["shards"][2]["xxh128"] = "\ud800"
    path.write_text(json.dumps(index))
    return "index: shards/train/index.json"


def _spoil_the_change_of_the_index(root: Path) -> str:
    path = root / "shards/train/index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "change": "\x1b[2J"}))
    return "index: shards/train/index.json"


def _add_to_the_index(root: Path) -> str:
    path = root / "shards/train/index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "\ud800": 1}))
    return "index: shards/train/index.json"


@pytest.mark.parametrize(
    "spoil",
    [_flip_an_image, _flip_a_name, _change_a_label, _cut, _remove, _swap, _add,
     _spoil_the_index, _spoil_a_digest_of_the_index, _cut_the_index,
     _nest_the_index, _count_without_end, _spoil_a_name_of_the_index,
     _spoil_a_shown_digest_of_the_index, _spoil_the_change_of_the_index, _add_to_the_index],
)  # fmt: skip
def test_wrong_shards_are_called_wrong(
    spoil: Callable[[Path], str], sharded: Path, run: Run
) -> None:
    told = spoil(sharded)
    words = ["verify", "--root", sharded, "--split", "train", "--layout", "webdataset"]
    done = run(*words, "--digests")
    assert done.returncode == 5
    assert told in done.stdout, done.stdout
    quick = run(*words)
    assert (quick.returncode == 5) is ("digest:" not in told)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that decode, their shorter side 36 to 44 px."""
    root = draw_root(tmp_path_factory.mktemp("drawn"), classes=2, train=10, val=2)
    return root.path


def test_resized_shards_say_so_everywhere(drawn: Path, tmp_path: Path, run: Run) -> None:
    import webdataset

    root = Path(shutil.copytree(drawn, tmp_path / "root"))
    words = ["organize", "--root", root, *WORDS, "--resize", 38, "--quality", 80]
    done = run(*words, "--json", "--jobs", 2)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["change"] for each in told] == ["resize 38 q80"] * 2
    with open_manifest(root / "manifest.db") as manifest:
        held = manifest.splits()[Split.TRAIN, Layout.WEBDATASET]
        of_shards = {sample.name: sample for sample in manifest.in_shards(held)}
    small = resized = 0
    for sample in webdataset.WebDataset(
        sorted(map(str, (root / "shards/train").glob("*.tar"))), shardshuffle=False
    ):
        about = json.loads(sample["json"])
        source = (root / "train" / about["wnid"] / about["name"]).read_bytes()
        record = of_shards[about["name"]]
        assert about.get("change") == record.change
        assert xxh128(sample["jpg"]) == record.xxh128
        assert (sample["jpg"], record.change) == resized_jpeg(source, Resize(38, 80))
        small += record.change is None and sample["jpg"] == source
        resized += record.change == "resized 38 q80"
    assert small and resized and small + resized == 20
    words = ["--root", root, "--layout", "webdataset"]
    done = run("verify", *words, "--digests", "--decode")
    assert done.returncode == 0, done.stdout
    assert "the train images are not as published: resize 38 q80" in done.stderr
    done = run("organize", *words, "--shard-size", 7)
    assert done.returncode == 1 and "resize 38 q80" in done.stderr
    index = json.loads((root / "shards/val/index.json").read_text())
    assert index["change"] == "resize 38 q80"


def test_resized_shards_are_the_same_bytes_whatever_the_jobs(
    drawn: Path, tmp_path: Path, run: Run
) -> None:
    made = []
    for jobs in (1, 3):
        root = Path(shutil.copytree(drawn, tmp_path / f"{jobs}"))
        words = ["organize", "--root", root, *WORDS, "--resize", 38, "--jobs", jobs]
        assert run(*words).returncode == 0
        made.append(tree(root / "shards"))
    assert made[0] == made[1]


def test_an_image_that_cannot_be_resized_is_named(sharded: Path, run: Run) -> None:
    shutil.rmtree(sharded / "shards")
    done = run("organize", "--root", sharded, *WORDS, "--resize", 64, "--jobs", 2)
    assert done.returncode == 4
    hint = f"imnetprep verify --root {sharded} --layout imagefolder --digests --decode names"
    assert ".JPEG: " in done.stderr and hint in done.stderr
    assert not (sharded / "shards").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--seed", 1],
        ["--shard-size", 9],
        ["--quality", 9],
        ["--layout", "webdataset", "--quality", 9],
        ["--layout", "webdataset", "--meta-bin"],
    ],
)
def test_words_that_do_not_go_together_are_refused(
    organized_once: Path, run: Run, words: list[object]
) -> None:
    done = run("organize", "--root", organized_once, *words)
    assert (done.returncode, "Hint: " in done.stderr) == (2, True)
