"""Kinds of images that people have, from their folder to shards: seen as they are, or named."""

import io
import json
import tarfile
from collections import defaultdict
from pathlib import Path

import pytest
from PIL import Image, ImageStat

from imnetprep import images
from tests.conftest import Run
from tests.packings import openable


def _grey16(path: Path, grey: int, form: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = b"".join((grey + 40 * at).to_bytes(2, "little") for at in range(50))
    Image.frombytes("I;16", (50, 40), pixels * 40).save(path, form)


def _means(root: Path) -> dict[str, list[float]]:
    """The brightness of the images of each class in the shards, from 0 to 255."""
    means = defaultdict(list)
    for path in sorted(root.glob("shards/*/*.tar")):
        with tarfile.open(path) as tar:
            bodies = {each.name: file.read() for each in tar if (file := tar.extractfile(each))}
        for name in (each for each in bodies if each.endswith(".json")):
            image = Image.open(io.BytesIO(bodies[name.replace(".json", ".jpg")])).convert("L")
            means[json.loads(bodies[name])["wnid"]].append(ImageStat.Stat(image).mean[0])
    return means


def test_grey_of_16_bits_keeps_its_brightness_in_shards(tmp_path: Path, here: Run) -> None:
    for number in range(4):
        _grey16(tmp_path / "scans" / "pale" / f"{number}.png", 48_000, "PNG")
        _grey16(tmp_path / "scans" / "dark" / f"{number}.tif", 2_000, "TIFF")
    root = tmp_path / "root"
    assert here("divide", tmp_path / "scans", "--root", root).returncode == 0
    assert here("verify", "--root", root, "--decode").returncode == 0
    shards = "--layout", "webdataset", "--resize", 20, "--jobs", 1
    assert here("organize", "--root", root, *shards).returncode == 0
    means = _means(root)
    assert {wnid: len(values) for wnid, values in means.items()} == {"pale": 4, "dark": 4}
    assert all(value == pytest.approx(190.6, abs=3) for value in means["pale"])
    assert all(value == pytest.approx(11.6, abs=3) for value in means["dark"])


def test_a_giant_is_taken_and_read_where_it_is_made_smaller(
    tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MOST_PIXELS", 2_000)
    for wnid in ("roof", "field"):
        (tmp_path / "maps" / wnid).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (40, 40), "teal").save(tmp_path / "maps" / wnid / f"{number}.png")
    Image.new("RGB", (90, 60), "teal").save(tmp_path / "maps" / "roof" / "large.png")
    Image.new("RGB", (90, 60), "teal").save(tmp_path / "maps" / "roof" / "large.jpg")
    root = tmp_path / "root"
    assert here("divide", tmp_path / "maps", "--root", root).returncode == 0
    told = here("verify", "--root", root, "--decode")
    assert told.stdout.count("giant: ") == 2 and "decode: " not in told.stdout, told.stdout
    assert told.stdout.count("has 90 × 60 pixels: at most") == 2, told.stdout
    mended = here("repair", "--root", root, "--decode")
    assert mended.stdout.count("0 taken") == 2, "what is whole is not taken anew"
    assert mended.stdout.count("giant: ") == 2 and mended.returncode == 5
    shards = "--layout", "webdataset", "--resize", 20, "--jobs", 1
    done = here("organize", "--root", root, *shards)
    assert done.returncode == 0, done.stderr
    assert here("verify", "--root", root, "--layout", "webdataset", "--decode").returncode == 0


def test_every_file_that_is_not_read_is_named_with_what_it_is(tmp_path: Path, here: Run) -> None:
    for wnid in ("tern", "gull"):
        (tmp_path / "birds" / wnid).mkdir(parents=True)
        for number in range(3):
            path = tmp_path / "birds" / wnid / f"{number}.jpg"
            Image.new("RGB", (30, 20), "navy").save(path)
    whole = path.read_bytes()
    wrong = {
        "a.jpg": (b"", "is empty"),
        "b.jpg": (b"<!doctype html>\n<p>Not found", "is a web page, not an image"),
        "c.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC image"),
        "d.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", "is a JPEG 2000 image"),
        "e.jpg": (whole[:-40], "does not decode: "),
        "f.jpg": (whole[:40] + whole[-2:], "does not decode: "),
        "g.png": (bytes(99), "is nothing but zeros"),
    }
    for name, (body, _) in wrong.items():
        (tmp_path / "birds" / "gull" / name).write_bytes(body)
    root, folder = tmp_path / "root", tmp_path / "birds"
    told = here("divide", folder, "--root", root)
    assert told.returncode == 1 and not (root / "manifest.db").exists()
    for name, (_, problem) in wrong.items():
        assert f"{folder}/gull/{name} {problem}" in told.stdout
    done = here("divide", folder, "--root", root, "--skip-bad")
    assert done.returncode == 0 and "2 classes: gull 3, tern 3" in done.stdout
    receipt = json.loads((root / "receipt.json").read_text())
    skipped = [each["skipped"] for each in receipt["splits"].values()]
    assert {name for each in skipped for name in each} == {f"gull/{name}" for name in wrong}
    assert here("verify", "--root", root, "--decode").returncode == 0


def test_an_image_that_cannot_be_made_smaller_is_named_with_its_class(
    tmp_path: Path, here: Run
) -> None:
    for wnid in ("oak", "elm"):
        (tmp_path / "trees" / wnid).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (30, 20), "olive").save(tmp_path / "trees" / wnid / f"{number}.jpg")
    (tmp_path / "trees" / "elm" / "2.jpg").write_bytes(openable("no pixels"))
    root = tmp_path / "root"
    assert here("divide", tmp_path / "trees", "--root", root).returncode == 0
    done = here("organize", "--root", root, "--layout", "webdataset", "--resize", 10)
    assert done.returncode == 4
    assert "elm/2.jpg: does not decode: " in done.stderr
    assert "verify --root" in done.stderr and "--decode names every such image" in done.stderr
