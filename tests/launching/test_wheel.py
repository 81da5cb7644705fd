"""The wheel that a machine installs: that of this version, whole, the same each time."""

import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

import imnetprep
from imnetprep.launching.wheel import Wheel, build_wheel


@pytest.fixture(scope="module")
def wheel() -> Wheel:
    return build_wheel()


def test_has_every_file_of_the_package_and_nothing_else(wheel: Wheel) -> None:
    package = Path(imnetprep.__file__).parent
    files = {
        str(path.relative_to(package.parent)): path.read_bytes()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(BytesIO(wheel.body)) as archive:
        inside = {
            name: archive.read(name) for name in archive.namelist() if ".dist-info" not in name
        }
    assert inside == files


def test_the_same_files_give_the_same_bytes(wheel: Wheel) -> None:
    assert build_wheel() == wheel
    assert len(wheel.sha256) == 64


def test_pip_installs_it_and_the_command_runs_without_the_checkout(
    wheel: Wheel, tmp_path: Path
) -> None:
    file = tmp_path / wheel.name
    file.write_bytes(wheel.body)
    place = tmp_path / "place"
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    words += ["--disable-pip-version-check", "--target", str(place), str(file)]
    subprocess.run(words, check=True, cwd=tmp_path)
    command = place / "bin" / "imnetprep"
    done = subprocess.run(
        [sys.executable, command, "datasets"], env={"PYTHONPATH": str(place)}, cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ilsvrc2012" in done.stdout
    where = "import imnetprep; print(imnetprep.__file__)"
    shown = subprocess.check_output(
        [sys.executable, "-c", where], env={"PYTHONPATH": str(place)}, cwd=tmp_path, text=True
    )
    assert Path(shown.strip()).is_relative_to(place)
    facts = f"{place}/imnetprep-{imnetprep.__version__}.dist-info/METADATA"
    assert 'Requires-Dist: torch>=2.6; extra == "train"' in Path(facts).read_text()
