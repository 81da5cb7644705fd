"""The notebook runs whole without a network, resumes elsewhere, and is kept without outputs."""

import json
import os
import shutil
import subprocess
import sys
import types
import zipfile
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import ipywidgets
import nbformat
import pytest
from ipywidgets.widgets.widget import _instances

from imnetprep import notebook
from imnetprep.catalog.datasets import Root
from imnetprep.messages import ImnetprepError

HERE = Path(__file__).parent.parent.parent
NOTEBOOK = HERE / "notebooks" / "imnetprep.ipynb"


@pytest.fixture(scope="module")
def without_network() -> Sequence[str]:
    """What a command is started by to have no network at all, not even a loopback."""
    words = ["unshare", "--map-root-user", "--net"]
    if not shutil.which("unshare") or subprocess.run([*words, "true"], check=False).returncode:
        pytest.skip("unshare makes no network namespace here")
    return words


@pytest.fixture(scope="module")
def archive(drawn: Root, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip as that of cats and dogs is: a folder a class, a broken image, other files."""
    path = tmp_path_factory.mktemp("archive") / "drawn.zip"
    with zipfile.ZipFile(path, "w") as file:
        for image in sorted((drawn.path / "train").glob("*/*")):
            file.write(image, f"PetImages/{image.parent.name}/{image.name}")
        file.writestr("PetImages/n10000000/666.jpg", b"")
        file.writestr("PetImages/n10000001/Thumbs.db", b"litter")
        file.writestr("readme[1].txt", b"text")
    return path


def _executed(
    words: Sequence[str], folder: Path, archive: Path, *choices: str
) -> nbformat.NotebookNode:
    """The notebook, run as a command of `words` in `folder`, with its outputs."""
    folder.mkdir()
    all_choices = [
        f'SOURCE, FOLDER = "{archive}", "PetImages"',
        "WEIGHTS, IMAGE_SIZE, BATCH_SIZE = None, 32, 16",
        *choices,
    ]
    done = subprocess.run(
        [*words, sys.executable, HERE / "scripts" / "notebook", "out.ipynb", *all_choices],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"IPYTHONDIR": str(folder / "ipython")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return nbformat.read(folder / "out.ipynb", as_version=4)


def _text(executed: nbformat.NotebookNode, cell_id: str) -> str:
    """What a cell printed, on both streams."""
    (cell,) = (each for each in executed.cells if each.id == cell_id)
    return "".join(each.text for each in cell.outputs if each.output_type == "stream")


def _pictures(executed: nbformat.NotebookNode) -> list[str]:
    """The cells that show a picture."""
    return [
        cell.id
        for cell in executed.cells
        if any("image/png" in output.get("data", ()) for output in cell.get("outputs", ()))
    ]


def test_it_runs_whole_without_a_network_and_resumes_on_another_machine(
    without_network: Sequence[str], archive: Path, tmp_path: Path
) -> None:
    save = f'SAVE = "{tmp_path / "save"}"'
    first = _executed(without_network, tmp_path / "first", archive, save, "EPOCHS = 1")
    assert _text(first, "device").startswith("device: ")
    assert "PetImages/n10000000/666.jpg is empty" in _text(first, "divide")
    assert "train: 42 images\nval: 18 images\n" in _text(first, "divide")
    assert "epoch 1/1" in _text(first, "train")
    assert "/18 " in _text(first, "mistakes")
    assert "%  n1000000" in _text(first, "answer")
    shown = _pictures(first)
    assert [name for name in shown if name != "mistakes"] == ["look", "curves", "answer"]

    shutil.rmtree(tmp_path / "first")  # the runtime is lost, what was saved is not
    second = _executed(without_network, tmp_path / "second", archive, save, "EPOCHS = 2")
    assert "run cats-and-dogs resumes at epoch 2" in _text(second, "train")
    assert "epoch 2/2" in _text(second, "train")
    assert "epoch 1/" not in _text(second, "train")
    assert "best.pt last.pt" in _text(second, "saved")


def test_it_is_kept_without_outputs_and_each_cell_is_explained() -> None:
    kept = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(kept)
    for before, cell in zip([None, *kept.cells], kept.cells, strict=False):
        if cell.cell_type == "code":
            assert cell.execution_count is None
            assert cell.outputs == []
            assert before is not None
            assert before.cell_type == "markdown"
            assert len(before.source.splitlines()) == 1


def test_a_failed_cell_ends_it_with_a_hint(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(archive.read_bytes()[:-10])
    with pytest.raises(AssertionError, match=r"(?s)WrongBytes.*Hint: "):
        _executed([], tmp_path / "work", tmp_path / "broken.zip")


def _arrive(widget: Any, name: str, body: bytes) -> None:
    """Do what the browser's message does when a file was chosen."""
    file = {"name": name, "type": "", "size": len(body), "lastModified": 1_700_000_000_000}
    file["last_modified"] = file["lastModified"]
    widget.set_state({"value": [file | {"content": memoryview(body)}]})


def test_an_uploaded_file_lies_in_its_folder_and_not_in_the_notebook(tmp_path: Path) -> None:
    before = set(_instances)
    notebook.upload(tmp_path / "uploads", accept=".json")
    (widget,) = (
        each
        for key, each in _instances.items()
        if key not in before and isinstance(each, ipywidgets.FileUpload)
    )
    body = json.dumps({"username": "me", "key": "secret"}).encode()
    _arrive(widget, "../kaggle.json", body)
    (path,) = notebook.files_in(tmp_path / "uploads")
    assert path.read_bytes() == body
    assert path.name == "kaggle.json"
    assert path.stat().st_mode & 0o077 == 0
    assert widget.value == ()
    assert not (tmp_path / "kaggle.json").exists()
    _arrive(widget, "other.json", b"{}")
    assert notebook.files_in(tmp_path / "uploads")[0].name == "other.json"


TOKEN = b'{"username": "me", "key": "k"}'


@pytest.fixture
def colab(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Colab's two modules, as they answer there: one file was chosen, and Drive was allowed."""
    calls = types.SimpleNamespace(mounts=[])

    def upload(target_dir: str = "") -> dict[str, bytes]:
        path = Path(target_dir, "kaggle (1).json")
        path.write_bytes(TOKEN)
        return {str(path): TOKEN}

    for name, functions in {
        "google": {}, "google.colab": {}, "google.colab.files": {"upload": upload},
        "google.colab.drive": {"mount": calls.mounts.append},
    }.items():  # fmt: skip
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(functions, __path__=[])
        monkeypatch.setitem(sys.modules, name, module)
    return calls


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell that runs Colab's notebooks, by the name of its module."""
    kind = type("Shell", (), {"__module__": "google.colab._shell"})
    monkeypatch.setattr("IPython.get_ipython", kind)


def test_where_the_package_of_colab_is_and_its_shell_is_not_no_drive_is_asked_for(
    colab: types.SimpleNamespace,
) -> None:
    """The images of Kaggle are made of Colab's."""
    assert notebook.runs_folder("drive") is None
    assert not colab.mounts


@pytest.mark.usefixtures("shell")
def test_colab_is_asked_for_files_and_for_drive(
    colab: types.SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    notebook.ask_for_kaggle_token()
    (path,) = notebook.files_in(tmp_path / ".kaggle")
    assert path.name == "kaggle.json"
    assert path.stat().st_mode & 0o077 == 0
    assert notebook.has_kaggle_token()
    assert notebook.runs_folder("drive") == Path("/content/drive/MyDrive/imnetprep-runs")
    assert colab.mounts == ["/content/drive"]


def test_trainings_lie_where_they_are_saved() -> None:
    assert notebook.runs_folder("s3://bucket/runs") == "s3://bucket/runs"
    assert notebook.runs_folder("drive") is None  # there is none outside Colab
    assert notebook.runs_folder("") is None


def test_a_token_of_kaggle_is_found_and_then_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not notebook.has_kaggle_token()
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    assert not notebook.has_kaggle_token(), "it needs a name beside it"
    monkeypatch.delenv("KAGGLE_KEY")
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle" / "kaggle.json").write_bytes(TOKEN)
    assert notebook.has_kaggle_token()
    before = set(_instances)
    notebook.ask_for_kaggle_token()
    assert set(_instances) == before


def test_without_what_it_needs_it_says_what_to_do(tmp_path: Path) -> None:
    """In a Python that has neither IPython nor ipywidgets."""
    text = """
import sys
sys.modules |= {"IPython": None, "ipywidgets": None}
from imnetprep import messages, notebook
for call in (lambda: notebook.upload("uploads"), lambda: notebook.show(__file__)):
    try:
        call()
    except messages.ImnetprepError as error:
        print(error, error.hint, sep="; ")
"""
    (tmp_path / "script.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(HERE)},
    )
    assert done.stdout.splitlines() == [
        "ipywidgets is not installed; pip install ipywidgets; or copy the file to uploads",
        "IPython is not installed; pip install IPython; or open this in Jupyter, Colab, Kaggle or"
        " SageMaker",
    ], done.stderr


def test_a_picture_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImnetprepError, match="there is no picture"):
        notebook.show(tmp_path / "no.png")
