"""A damaged archive is named to the byte and the image; a right one is called proved."""

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imnetprep.synthetic import pack_dataset
from tests.conftest import PIECE, TRAIN, VAL, Run, receipt_of, spoil, tree
from tests.servers import BUCKET, S3Server, s3_served, web_served


def _members(archive: Path) -> dict[str, bytes]:
    """Every image of the train archive, by Python's own reader."""
    bodies = {}
    with tarfile.open(archive) as outer:
        for class_tar in outer:
            with tarfile.open(fileobj=outer.extractfile(class_tar)) as inner:
                for image in inner:
                    file = inner.extractfile(image)
                    assert file is not None
                    bodies[image.name] = file.read()
    return bodies


def test_right_archives_are_proved_and_the_receipt_says_so(archived: Path, run: Run) -> None:
    done = run("verify-archives", "--root", archived)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{TRAIN}: 2.02 MB, all 31 pieces right" in done.stdout
    assert f"{VAL}: 379 kB, its md5 is right" in done.stdout
    assert set(receipt_of(archived)["archives"]) == {TRAIN, VAL}
    assert "nothing to fetch" in run("download", "--root", archived, "--split", "train").stdout


def test_damage_is_named_by_bytes_classes_and_images(archived: Path, run: Run) -> None:
    path = archived / "archives" / TRAIN
    assert run("verify-archives", "--root", archived).returncode == 0
    right, members = path.read_bytes(), _members(path)
    for start in (9 * PIECE + 10_240, 20 * PIECE, 21 * PIECE + 5):
        spoil(path, start, 3)
    done = run("verify-archives", "--root", archived, "--json", "--split", "train")
    assert done.returncode == 5
    first, second, summary = map(json.loads, done.stdout.splitlines())
    assert summary["findings"] == 2
    assert (first["start"], first["end"]) == (9 * PIECE, 10 * PIECE)
    assert (second["start"], second["end"]) == (20 * PIECE, 22 * PIECE), "merged"
    for finding in (first, second):
        inside = []
        for name, body in members.items():
            at = right.index(name.encode() + b"\0")
            if at < finding["end"] and at + 512 + len(body) > finding["start"]:
                inside.append(name)
        assert finding["images"] == inside
        assert set(finding["classes"]) == {name.split("_")[0] for name in finding["images"]}
    assert TRAIN not in receipt_of(archived)["archives"], "its proof is withdrawn"


def test_a_damaged_header_does_not_stop_the_naming(archived: Path, run: Run) -> None:
    path = archived / "archives" / TRAIN
    right = path.read_bytes()
    names = [name.encode() for name in _members(path)]
    inside = sorted(at for name in names if 5 * PIECE <= (at := right.index(name)) < 6 * PIECE)
    for at in (0, inside[1], inside[2]):  # the first class tar's own header, and two images'
        spoil(path, at, 512)
    done = run("verify-archives", "--root", archived, "--json", "--split", "train")
    first, second, _ = map(json.loads, done.stdout.splitlines())
    assert (first["start"], second["start"]) == (0, 5 * PIECE)
    named = {right[at : right.index(b"\0", at)].decode() for at in inside}
    gone = {right[at : right.index(b"\0", at)].decode() for at in inside[1:3]}
    assert named - set(second["images"]) == gone
    assert "in which no header can be read" in second["message"]
    assert first["classes"] == ["n01440764"]


@pytest.mark.parametrize("size_bytes", [0, 1000, 1_000_000])
def test_a_truncated_archive_is_named_so(size_bytes: int, archived: Path, run: Run) -> None:
    with (archived / "archives" / TRAIN).open("r+b") as file:
        file.truncate(size_bytes)
    done = run("verify-archives", "--root", archived, "--split", "train")
    assert done.returncode == 5, done.stderr
    assert f"has {size_bytes:,} bytes, not " in done.stdout


def test_a_wrong_digest_is_a_finding(archived: Path, run: Run) -> None:
    spoil(archived / "archives" / VAL, 5000)
    done = run("verify-archives", "--root", archived, "--split", "val")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (5, "1 finding in 1 archive")
    assert done.stdout.startswith(f"digest: {archived / 'archives' / VAL} its md5 is ")


def test_what_nothing_can_prove_is_looked_at_by_its_form(tmp_path: Path, run: Run) -> None:
    toml = pack_dataset(tmp_path, classes=3, train_per_class=5, val_per_class=4)
    text = toml.read_text()
    kept = [line for line in text.splitlines() if not line.startswith(("md5", "size_bytes"))]
    toml.write_text("\n".join(kept))
    root = ["--root", tmp_path / "root"]
    words = [*root, "--dataset", toml, "--archives", tmp_path]
    assert run("organize", *words).returncode == 0
    done = run("verify-archives", *root, "--archives", tmp_path)
    assert done.returncode == 0
    assert done.stdout.count("not verified: the dataset names no digest") == 2
    assert not receipt_of(tmp_path / "root")["archives"]
    body = (tmp_path / VAL).read_bytes()
    first = body[:512] + body[512 : 512 + -(-int(body[124:135], 8) // 512) * 512]
    for wrong, told in (
        (body[: len(first)], "structure: "),  # cut between two members
        (body[len(first) :], "has 3 images, not 4"),
        (first + body, "is there a second time"),
    ):
        (tmp_path / VAL).write_bytes(wrong)
        done = run("verify-archives", *root, "--archives", tmp_path, "--split", "val")
        assert done.returncode == 5
        assert told in done.stdout


def test_a_dry_run_judges_and_leaves_the_receipt(archived: Path, here: Run) -> None:
    before = tree(archived)
    done = here("verify-archives", "--root", archived, "--dry-run")
    assert done.stdout.endswith("0 findings in 2 archives\n"), done.stderr
    assert tree(archived) == before


def test_images_and_archives_are_not_mixed_up(archived: Path, run: Run) -> None:
    assert run("verify-archives", "--root", archived, "--digests").returncode == 2
    (archived / "archives" / TRAIN).unlink()
    done = run("verify-archives", "--root", archived, "--split", "train")
    assert (done.returncode, "is not there" in done.stderr) == (1, True)


def test_a_damaged_receipt_does_not_stop_the_check(archived: Path, run: Run) -> None:
    (archived / "receipt.json").write_text('{"archives": ')
    done = run("verify-archives", "--root", archived)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "0 findings in 2 archives")
    assert (archived / "receipt.json").read_text() == '{"archives": '


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory, published: Path) -> Iterator[S3Server]:
    """`right/` has both archives, `wrong/` one with a flipped byte in three pieces of train."""
    with s3_served(tmp_path_factory.mktemp("weed")) as server:
        client = server.client()
        for name in (TRAIN, VAL):
            body = bytearray((published.parent / name).read_bytes())
            put = {"Bucket": BUCKET, "ChecksumAlgorithm": "CRC32"}
            client.put_object(**put, Key=f"right/archives/{name}", Body=bytes(body))
            for start in (9 * PIECE + 10_240, 20 * PIECE, 21 * PIECE + 5) if name == TRAIN else [7]:
                body[start] ^= 1
            client.put_object(**put, Key=f"wrong/{name}", Body=bytes(body))
        yield server


@pytest.fixture
def of_bucket(
    s3: S3Server, published: Path, tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """verify-archives of a prefix of the bucket, into an empty root; `dataset`, or `published`."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)

    def verify(
        prefix: str, *words: object, dataset: Path = published
    ) -> subprocess.CompletedProcess[str]:
        place = ["--archives", f"s3://{BUCKET}/{prefix}", "--root", tmp_path / "root"]
        done = here("verify-archives", *place, "--dataset", dataset, *words)
        assert not (tmp_path / "root").exists(), "nothing of a bucket is kept here"
        return done

    return verify


def test_the_archives_of_a_bucket_are_verified_where_they_lie(of_bucket: Run) -> None:
    done = of_bucket("right")
    assert done.returncode == 0, done.stdout + done.stderr
    place = f"s3://{BUCKET}/right/archives"
    assert f"{place}/{TRAIN}: 2.02 MB, all 31 pieces right" in done.stdout
    assert f"{place}/{VAL}: 379 kB, its md5 is right" in done.stdout


def test_damage_in_a_bucket_is_named_by_bytes_and_images(of_bucket: Run) -> None:
    done = of_bucket("wrong", "--json")
    assert done.returncode == 5, done.stderr
    *damage, digest, summary = map(json.loads, done.stdout.splitlines())
    assert [(each["start"], each["end"]) for each in damage] == [
        (9 * PIECE, 10 * PIECE), (20 * PIECE, 22 * PIECE)
    ]  # fmt: skip
    assert all(each["images"] for each in damage)
    assert digest["path"] == f"s3://{BUCKET}/wrong/{VAL}" and digest["kind"] == "digest"
    assert summary["findings"] == 3


def test_what_no_digest_proves_is_compared_with_the_checksum_of_the_bucket(
    published: Path, tmp_path: Path, of_bucket: Run
) -> None:
    dataset, text = tmp_path / published.name, published.read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("md5", "torrent"))]
    for path in (*published.parent.glob("*.tsv"), *published.parent.glob("*.txt")):
        shutil.copy(path, tmp_path)
    dataset.write_text("\n".join(lines))
    done = of_bucket("right", dataset=dataset)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("its crc32 is that of its server") == 2
    done = of_bucket("wrong", "--split", "val", dataset=dataset)
    assert done.returncode == 5, "the server has the wrong bytes and their checksum"
    assert f"structure: s3://{BUCKET}/wrong/{VAL}" in done.stdout


def test_a_bucket_without_the_archive_is_told_as_what_its_server_says(of_bucket: Run) -> None:
    done = of_bucket("elsewhere")
    assert done.returncode == 3
    assert f"s3://{BUCKET}/elsewhere/{TRAIN}" in done.stderr


def test_a_web_server_is_read_as_well(published: Path, tmp_path: Path, here: Run) -> None:
    with web_served(published.parent) as web:
        words = ["--root", tmp_path, "--dataset", published, "--archives", web.address]
        done = here("verify-archives", *words)
    assert done.stdout.endswith("0 findings in 2 archives\n"), done.stderr


def test_a_pipe_is_no_place_to_verify(tmp_path: Path, here: Run) -> None:
    done = here("verify-archives", "--root", tmp_path, "--archives", "-")
    assert (done.returncode, "is a pipe" in done.stderr) == (2, True)


def test_the_dataset_of_a_folder_of_archives_can_be_named(
    published: Path, tmp_path: Path, run: Run
) -> None:
    words = [
        "verify-archives",
        "--root",
        tmp_path,
        "--dataset",
        published,
        "--archives",
        published.parent,
    ]
    done = run(*words)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "0 findings in 2 archives"
