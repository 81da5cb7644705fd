"""Straight from a bucket, a web server or a pipe: the same tree, no archive on this disk."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imnetprep.archives.file import LocalFile
from imnetprep.archives.range_index import format_index
from imnetprep.archives.ranges import plan_ranges
from imnetprep.catalog.datasets import Split, load_dataset
from imnetprep.synthetic import pack_dataset
from tests.conftest import Run, command, tree
from tests.packings import picture, write_dataset, write_tar, write_zip
from tests.servers import BUCKET, S3Server, s3_served, web_served

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> Iterator[S3Server]:
    with s3_served(tmp_path_factory.mktemp("weed")) as server:
        for name in (TRAIN, VAL):
            body = (packed.parent / name).read_bytes()
            put = {"Bucket": BUCKET, "Key": f"sets/packed/{name}", "Body": body}
            server.client().put_object(**put, ChecksumAlgorithm="CRC32")
        yield server


def _without_digests(packed: Path, folder: Path) -> Path:
    """The same dataset, whose definition names no digest of its archives."""
    shutil.copytree(packed.parent, folder)
    lines = [line for line in packed.read_text().splitlines() if not line.startswith("md5")]
    (folder / packed.name).write_text("\n".join(lines))
    return folder / packed.name


@pytest.mark.parametrize("digests", [True, False])
def test_from_a_bucket_comes_the_same_tree(
    s3: S3Server, packed: Path, organized_once: Path, tmp_path: Path, run: Run, digests: bool
) -> None:
    dataset = packed if digests else _without_digests(packed, tmp_path / "plain")
    root, place = tmp_path / "root", f"s3://{BUCKET}/sets/packed/"
    words = ["--root", root, "--dataset", dataset, "--archives", place]
    done = run("organize", *words, env=os.environ | s3.environment)
    assert done.returncode == 0, done.stderr
    for split in ("train", "val"):
        assert tree(root / split) == tree(organized_once / split)
    assert not list((root / "archives").glob("*.tar"))
    proof = json.loads((root / "receipt.json").read_text())["splits"]["train"]["proof"]
    assert proof["kind"] == ("md5" if digests else "crc32")


def test_part_of_what_a_bucket_keeps_is_not_proved_by_the_checksum_of_the_whole(
    s3: S3Server, packed: Path, organized_once: Path, tmp_path: Path, run: Run
) -> None:
    dataset, listed, to = _without_digests(packed, tmp_path / "plain"), tmp_path / "two", tmp_path
    listed.write_text("n01491361\nn01443537\n")
    words = ["subset", listed, "--archives", f"s3://{BUCKET}/sets/packed", "--dataset", dataset]
    done = run(*words, "--root", to, env=os.environ | s3.environment)
    assert done.returncode == 0, done.stderr
    splits = json.loads((to / "receipt.json").read_text())["splits"]
    for split, kind in (("train", "none"), ("val", "crc32")):  # all of the flat archive is read
        whole = tree(organized_once / split)
        assert tree(to / split) == {k: v for k, v in whole.items() if k[:9] in listed.read_text()}
        assert splits[split]["proof"]["kind"] == kind
    why = "only part of it was read, and its crc32 covers the whole file"
    assert splits["train"]["proof"]["why"] == why


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_other_forms_are_proved_by_the_checksum_that_the_bucket_keeps(
    s3: S3Server, form: str, tmp_path: Path, run: Run
) -> None:
    files = {f"top/{name}_{at}.jpg": picture(f"{name}{at}") for name in "ab" for at in range(9)}
    side = {"side/large": bytes(3 << 20)}  # lies between the samples, in no range of theirs
    toml = write_dataset(
        tmp_path / "mine",
        'name = "mine"\nsynsets = "s.tsv"\n[train]\nfile_name = "{wnid}_{number}.jpg"\n'
        "samples = 18\nsamples_per_class = 9\n[[archives]]\n"
        f'name = "mine.bin"\nform = "{form}"\nmembers.train = "top/{{name}}"\n',
        [("s.tsv", "wnid\na\nb\n")],
    )
    write = write_zip if form == "zip" else write_tar
    body = write(tmp_path / "mine.bin", {**side, **files, "side/more": b"x"}).read_bytes()
    put = {"Bucket": BUCKET, "Key": f"{form}/mine.bin", "Body": body}
    s3.client().put_object(**put, ChecksumAlgorithm="CRC32")
    words = ["--root", tmp_path / "root", "--dataset", toml, "--archives", f"s3://{BUCKET}/{form}"]
    done = run("organize", *words, env=os.environ | s3.environment)
    assert done.returncode == 0, done.stderr
    assert sorted(tree(tmp_path / "root" / "train").values()) == sorted(files.values())
    receipt = json.loads((tmp_path / "root" / "receipt.json").read_text())
    assert receipt["splits"]["train"]["proof"]["kind"] == "crc32"


def test_a_bucket_without_that_archive_is_told_with_the_mend(
    s3: S3Server, packed: Path, tmp_path: Path, run: Run
) -> None:
    words = ["--root", tmp_path, "--dataset", packed, "--archives", f"s3://{BUCKET}/elsewhere"]
    done = run("organize", *words, env=os.environ | s3.environment)
    assert done.returncode == 3
    assert f"s3://{BUCKET}/elsewhere/{TRAIN}" in done.stderr
    assert "aws s3 ls" in done.stderr


def test_wrong_credentials_are_told(s3: S3Server, packed: Path, tmp_path: Path, run: Run) -> None:
    words = ["--root", tmp_path, "--dataset", packed, "--archives", f"s3://{BUCKET}/sets/packed"]
    wrong = os.environ | s3.environment | {"AWS_SECRET_ACCESS_KEY": "wrong"}
    done = run("organize", *words, env=wrong)
    assert done.returncode == 3
    assert "Hint: the secret key is not that of the access key" in done.stderr
    without = {key: value for key, value in wrong.items() if not key.startswith("AWS_")}
    alone = without | {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    done = run("organize", *words, env=alone)
    assert "no AWS credentials" in done.stderr


def test_an_object_of_the_same_size_with_other_bytes_is_refused(
    s3: S3Server, packed: Path, tmp_path: Path, run: Run
) -> None:
    body = bytearray((packed.parent / VAL).read_bytes())
    body[700] ^= 1
    s3.client().put_object(Bucket=BUCKET, Key=f"flipped/{VAL}", Body=bytes(body))
    words = ["--root", tmp_path, "--dataset", packed, "--archives", f"s3://{BUCKET}/flipped"]
    done = run("organize", *words, "--split", "val", env=os.environ | s3.environment)
    assert done.returncode == 4, done.stderr
    assert "md5 is" in done.stderr
    assert not (tmp_path / "val").exists()


def test_from_the_web_through_cuts_and_503s(
    packed: Path, organized_once: Path, tmp_path: Path, run: Run
) -> None:
    dataset = _without_digests(packed, tmp_path / "plain")
    with web_served(dataset.parent) as web:
        web.fail_every, web.cut_every = 5, 7
        words = ["--root", tmp_path / "root", "--dataset", dataset, "--archives", web.address]
        done = run("organize", *words)
    assert done.returncode == 0, done.stderr
    for split in ("train", "val"):
        assert tree(tmp_path / "root" / split) == tree(organized_once / split)


def test_what_a_server_without_ranges_sends_is_read_as_a_pipe_is(
    packed: Path, organized_once: Path, tmp_path: Path, run: Run
) -> None:
    root = ["--root", tmp_path / "root", "--dataset", packed]
    with web_served(packed.parent) as web:
        web.ranges, web.cut_every = False, 3
        words = [*root, "--archives", web.address]
        done = run("organize", *words)
        assert done.returncode == 3, "a body broke"
        assert "the connection broke" in done.stderr
        assert "begin anew" in done.stderr
        web.cut_every = 0
        done = run("organize", *words)
        assert done.returncode == 0, done.stderr
        done = run("verify-archives", "--dataset", packed, "--archives", web.address)
        assert (done.returncode, done.stdout.count("its md5 is right")) == (0, 2), done.stderr
    for split in ("train", "val"):
        assert tree(tmp_path / "root" / split) == tree(organized_once / split)


def test_a_server_that_tells_an_absurd_range_is_refused(
    packed: Path, tmp_path: Path, run: Run
) -> None:
    with web_served(packed.parent) as web:
        web.content_range = f"bytes 0-0/{'9' * 5000}"
        words = ["--root", tmp_path, "--dataset", packed, "--archives", web.address]
        done = run("organize", *words)
    assert done.returncode == 3, done.stderr
    assert "the server says 206" in done.stderr


def test_the_index_beside_an_archive_saves_the_walk(
    packed: Path, organized_once: Path, tmp_path: Path, run: Run
) -> None:
    dataset = _without_digests(packed, tmp_path / "plain")
    known, file = load_dataset(str(dataset)), LocalFile(dataset.parent / VAL)
    ranges = plan_ranges(
        known.archive(Split.VAL), known, size_bytes=file.size_bytes or 0, read_at=file.read_at
    )
    (dataset.parent / f"{VAL}.index.json").write_bytes(format_index(ranges, of=file))
    with web_served(dataset.parent) as web:
        words = ["--root", tmp_path / "root", "--dataset", dataset, "--archives", web.address]
        done = run("organize", *words, "--split", "val")
        assert done.returncode == 0, done.stderr
        headers = [span for _, span in web.asked if span and _length(span) == 512]
    assert not headers
    assert tree(tmp_path / "root" / "val") == tree(organized_once / "val")


def _length(span: str) -> int:
    start, _, end = span.removeprefix("bytes=").partition("-")
    return int(end) - int(start) + 1


def test_a_wrong_index_is_refused_and_makes_nothing(packed: Path, tmp_path: Path, run: Run) -> None:
    dataset = _without_digests(packed, tmp_path / "plain")
    known, file = load_dataset(str(dataset)), LocalFile(dataset.parent / TRAIN)
    ranges = plan_ranges(
        known.archive(Split.TRAIN), known, size_bytes=file.size_bytes or 0, read_at=file.read_at
    )
    first, second, *rest = ranges
    swapped = [first._replace(wnid=second.wnid), second._replace(wnid=first.wnid), *rest]
    (dataset.parent / f"{TRAIN}.index.json").write_bytes(format_index(swapped, of=file))
    with web_served(dataset.parent) as web:
        words = ["--root", tmp_path / "root", "--dataset", dataset, "--archives", web.address]
        done = run("organize", *words, "--split", "train")
    assert done.returncode == 4
    assert "does not start at byte" in done.stderr
    assert not (tmp_path / "root" / "train").exists()


def test_killed_and_changed_on_the_server_what_grew_is_dropped(tmp_path: Path, run: Run) -> None:
    first = pack_dataset(tmp_path / "a", classes=6, train_per_class=30, image_bytes=60_000)
    toml = _without_digests(first, tmp_path / "first")
    with web_served(toml.parent) as web:
        words = ["--root", tmp_path / "root", "--dataset", toml, "--archives", web.address]
        words += ["--split", "train", "--jobs", "1"]
        web.etag = '"one"'
        process = subprocess.Popen(command("organize", *words), stderr=subprocess.DEVNULL)
        journal = tmp_path / "root" / ".organizing" / "journal.db"
        while process.poll() is None and not (journal.exists() and len(web.asked) > 5):
            pass
        process.kill()
        process.wait()
        web.etag = '"two"'
        done = run("organize", *words)
    assert done.returncode == 0, done.stderr
    assert (
        run("verify", "--root", tmp_path / "root", "--digests", "--split", "train").returncode == 0
    )


@pytest.mark.parametrize("digests", [True, False])
def test_a_pipe_is_read_once_and_proved(
    packed: Path, organized_once: Path, tmp_path: Path, run: Run, digests: bool
) -> None:
    dataset = packed if digests else _without_digests(packed, tmp_path / "plain")
    for split, name in (("train", TRAIN), ("val", VAL)):
        with (packed.parent / name).open("rb") as archive:
            words = ["--root", tmp_path / "root", "--dataset", dataset, "--archives", "-"]
            done = run("organize", *words, "--split", split, stdin=archive)
        assert done.returncode == 0, done.stderr
        assert tree(tmp_path / "root" / split) == tree(organized_once / split)


def test_a_pipe_that_ends_early_and_comes_again_goes_on(
    packed: Path, organized_once: Path, tmp_path: Path, run: Run
) -> None:
    words = ["organize", "--root", tmp_path, "--dataset", packed, "--archives", "-"]
    body = (packed.parent / TRAIN).read_bytes()
    cut = subprocess.run(
        command(*words, "--split", "train"), input=body[: len(body) * 2 // 3], capture_output=True,
        check=False,
    )  # fmt: skip
    assert cut.returncode == 4
    assert b"truncated" in cut.stderr
    assert not (tmp_path / "train").exists()
    other = body[:1600] + bytes([body[1600] ^ 1]) + body[1601:]
    wrong = subprocess.run(
        command(*words, "--split", "train"), input=other, capture_output=True, check=False
    )
    assert wrong.returncode == 4
    assert b"is not what it was" in wrong.stderr
    again = subprocess.run(
        command(*words, "--split", "train"), input=body, capture_output=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert tree(tmp_path / "train") == tree(organized_once / "train")


def test_a_pipe_for_two_splits_is_wrong_usage(packed: Path, tmp_path: Path, run: Run) -> None:
    done = run("organize", "--root", tmp_path, "--dataset", packed, "--archives", "-")
    assert done.returncode == 2
    assert "a pipe carries one archive" in done.stderr


def test_an_address_without_a_bucket_is_wrong_usage(packed: Path, tmp_path: Path, run: Run) -> None:
    done = run("organize", "--root", tmp_path, "--dataset", packed, "--archives", "s3:///")
    assert done.returncode == 2
    assert "names no bucket" in done.stderr
