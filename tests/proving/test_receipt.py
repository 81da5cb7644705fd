"""Proofs as values: kept as JSON, parsed from hostile JSON, and chosen."""

import json
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Root
from imnetprep.messages import ImnetprepError
from imnetprep.proving.receipt import (
    DigestProof,
    NoProof,
    Proof,
    ServerChecksum,
    Several,
    TorrentProof,
    parse_proof,
    proof_of_part,
    read_receipt,
    record_split,
    record_verify,
    verifies,
)

PIECES = TorrentProof("8a8d57e8945cbc10e28b00b952f1394f428a7330", 112)
MD5 = DigestProof("md5", "1d675b47d978889d74fa0da5fadfb00e")
CHECKSUM = ServerChecksum("crc64nvme", "88dcb4613a55ef52")


@pytest.mark.parametrize(
    "proof",
    [
        PIECES,
        TorrentProof(PIECES.info_hash, 112, part=True),
        MD5,
        CHECKSUM,
        ServerChecksum("crc64nvme", "88dcb4613a55ef52", "s3://bucket/a.tar"),
        NoProof("the dataset names no digest of its archive"),
        Several({"a.tar": PIECES, "b.tar": NoProof("nothing")}),
    ],
)
def test_a_proof_is_read_as_it_was_written(proof: Proof) -> None:
    assert parse_proof(json.loads(json.dumps(proof.as_json()))) == proof


@pytest.mark.parametrize(
    "table",
    [
        None,
        [],
        "md5",
        {},
        {"kind": "md5"},
        {"kind": "md4", "digest": "0"},
        {"kind": "md5", "digest": 0},
        {"kind": "md5", "digest": "0", "more": 1},
        {"kind": "none"},
        {"kind": "torrent", "info_hash": "0", "pieces": 0},
        {"kind": "torrent", "info_hash": "0", "pieces": "1"},
        {"kind": "torrent", "info_hash": "0", "pieces": 1, "of": "its server"},
        {"kind": "several", "of": {}},
        {"kind": "several", "of": {"a.tar": {"kind": "md5"}}},
        {"kind": "several", "of": {"a.tar": Several({"b.tar": MD5}).as_json()}},
    ],
)
def test_what_is_no_proof_is_refused(table: object) -> None:
    with pytest.raises(ValueError, match="proof"):
        parse_proof(table)


def test_a_part_is_proved_by_its_pieces_and_never_by_a_digest_of_the_whole() -> None:
    assert proof_of_part(PIECES, earlier=None) == TorrentProof(PIECES.info_hash, 112, part=True)
    assert proof_of_part(MD5, earlier=MD5) == MD5
    unproved = proof_of_part(MD5, earlier=None)
    assert unproved.describe() == (
        "not verified: only part of it was read, and its md5 covers the whole file"
    )


@pytest.mark.parametrize(
    "facts",
    [
        {"checks": [1]},
        {"checks": ["\x1b[2J"]},
        {"findings": "x"},
        {"findings": []},
        {"findings": True},
        {"recorded_at": {}},
        {"recorded_at": "\ud800"},
    ],
)
def test_a_verify_record_of_another_form_is_damage(
    tmp_path: Path, facts: dict[str, object]
) -> None:
    root = Root(tmp_path)
    record_verify(root, {"train": 0}, checks=["names"])
    receipt = read_receipt(root)
    receipt["verified"]["train"] |= facts
    root.receipt.write_text(json.dumps(receipt))
    with pytest.raises(ImnetprepError, match="is damaged") as caught:
        read_receipt(root)
    str(caught.value).encode()


def _verifies(root: Root) -> dict[str, tuple[list[str], int]]:
    verified = read_receipt(root)["verified"]
    return {name: (record["checks"], record["findings"]) for name, record in verified.items()}


def test_what_is_gone_keeps_no_good_verify(tmp_path: Path) -> None:
    root = Root(tmp_path)
    for name in ("train", "val", "archives"):
        (tmp_path / name).mkdir()
    (root.archives / "a.tar").touch()
    record_verify(root, {"train": 0, "val": 2, "a.tar": 0}, checks=["names"])
    for path in (tmp_path / "train", tmp_path / "val"):
        path.rmdir()
    assert list(verifies(root)) == ["a.tar", "val"], "findings stay"
    (root.archives / "a.tar").unlink()
    record_verify(root, {"train": 1}, checks=["names"])
    assert _verifies(root) == {"train": (["names"], 1), "val": (["names"], 2)}


def test_the_fullest_verify_of_each_split_is_kept(tmp_path: Path) -> None:
    root, full, short = Root(tmp_path), ["names", "digests"], ["names"]
    for name in ("train", "val", "shards/val"):
        (tmp_path / name).mkdir(parents=True)
    record_verify(root, {"train": 0}, checks=full)
    record_verify(root, {"train": 0, "val": 0}, checks=short)
    assert _verifies(root) == {"train": (full, 0), "val": (short, 0)}
    record_verify(root, {"val": 0, "shards/val": 0}, checks=full)
    assert _verifies(root) == dict.fromkeys(("train", "val", "shards/val"), (full, 0))
    record_verify(root, {"train": 2, "val": 0}, checks=short)
    assert _verifies(root)["train"] == (short, 2), "whatever was found since is told"
    record_verify(root, {"train": 0}, checks=short)
    record_split(root, "val")
    assert _verifies(root) == {"train": (short, 0), "shards/val": (full, 0)}, "val is made anew"


def test_half_a_character_is_damage_where_it_is_shown_and_may_be_in_a_path(tmp_path: Path) -> None:
    root, half = Root(tmp_path), "r\udcff"
    proof = NoProof(f"the images in {half}").as_json()
    record_split(root, "train", proof=proof)
    assert read_receipt(root)["splits"]["train"]["proof"] == proof
    root.receipt.write_text(json.dumps({"archives": {"a.tar": {"proof": proof}}}))
    with pytest.raises(ImnetprepError, match="is damaged"):
        read_receipt(root)
