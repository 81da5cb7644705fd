"""The contact sheet: which samples it shows, and that it shows what training sees."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from imnetprep.catalog.datasets import Root, Split
from imnetprep.contact_sheet import pick_rows, pictures, plan_contact_sheet
from imnetprep.manifest import open_manifest
from imnetprep.messages import WrongUsage
from imnetprep.pixels.augmentation import Sizes, TrainTransform
from imnetprep.recipes.plan_recipe import plan_recipe
from imnetprep.reports import drawing
from imnetprep.reports.drawing import fitted
from imnetprep.samples.sample_list import read_samples
from tests.conftest import Run
from tests.drawn import draw_root


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Root:
    return draw_root(tmp_path_factory.mktemp("sheet"), classes=4, train=5, val=2)


def test_draws_as_many_rows_and_columns_as_asked(drawn: Root, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    sheet = plan_contact_sheet(drawn, split=Split.TRAIN, classes=3, images=2, seed=4)
    sheet.write(out)
    assert [len(row.indices) for row in sheet.rows] == [2, 2, 2]
    with Image.open(out) as small:
        width, height = small.size
    sheet = plan_contact_sheet(drawn, split=Split.VAL, classes=9, images=9)
    sheet.write(out)
    assert [len(row.indices) for row in sheet.rows] == [2, 2, 2, 2]  # all that there are
    with Image.open(out) as large:
        assert (large.width, large.height > height) == (width, True)


def test_the_same_seed_gives_the_same_sheet(drawn: Root, tmp_path: Path) -> None:
    bodies = []
    for seed in (1, 1, 2):
        out = tmp_path / "sheet.png"
        sheet = plan_contact_sheet(drawn, split=Split.TRAIN, classes=2, images=2, seed=seed)
        sheet.write(out)
        bodies.append(out.read_bytes())
    assert bodies[0] == bodies[1] != bodies[2]


def test_shows_what_the_training_transform_made(drawn: Root) -> None:
    with open_manifest(drawn.manifest) as manifest:
        samples = read_samples(manifest, Split.TRAIN, drawn)
        rows = pick_rows(samples, manifest.synsets(), classes=4, images=3, seed=0)
    recipe = plan_recipe({"image_size": 48, "crop_scale": 0.3, "seed": 7}, amp_pays=False)
    for row in rows:
        assert {samples.labels[index] for index in row.indices} == {row.synset.label}
        for index in row.indices:
            plain, crop = pictures(samples, index, recipe)
            made = TrainTransform(Sizes(48, 48), 0.3, 7)(np.array(plain), epoch=0, index=index)
            assert np.array_equal(np.asarray(crop), made)


def test_long_names_end_in_an_ellipsis() -> None:
    font = ImageFont.load_default(12)
    assert fitted("tench", font, 100) == "tench"
    cut = fitted("electric ray, crampfish, numbfish, torpedo", font, 100)
    assert cut.endswith("…")
    assert font.getlength(cut) <= 100


def test_a_sheet_too_large_is_refused(drawn: Root) -> None:
    with pytest.raises(WrongUsage, match="too large"):
        plan_contact_sheet(drawn, split=Split.VAL, classes=5000, images=1)


def test_inspect_says_where_the_sheet_is(
    drawn: Root, tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = here("inspect", "--root", drawn.path, "--image-size", 32, "--split", "val")
    assert told.stdout == "inspect-val.png: 8 images of 4 classes\n"
    assert (tmp_path / "inspect-val.png").exists()


def test_the_ending_of_out_says_what_is_written(drawn: Root, tmp_path: Path, here: Run) -> None:
    words = "inspect", "--root", drawn.path, "--classes", 1, "--images", 1, "--out"
    for name, form in (("a.jpg", "JPEG"), ("b.JPEG", "JPEG"), ("c.png", "PNG")):
        assert here(*words, tmp_path / name).returncode == 0
        with Image.open(tmp_path / name) as image:
            assert image.format == form
    told = here(*words, tmp_path / "sheet.pdf")
    assert (told.returncode, (tmp_path / "sheet.pdf").exists()) == (2, False)
    assert "sheet.pdf: a sheet is a PNG or a JPEG\nHint: --out " in told.stderr


def test_a_class_name_in_any_script_is_drawn_without_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "_FONTS", ("no such font.ttf",))
    for text, drawn in (("Bär 狗", r"Bar \u72d7"), ("Corn_(maize)", "Corn_(maize)")):
        assert drawing.drawable(text, 12)[0] == drawn
