"""What a notebook needs beside the API: files by upload, pictures, the place that outlives it.

In Colab the browser is asked; elsewhere ipywidgets shows a button. A file that is copied into the
folder by hand is as good as one that was uploaded.
"""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from imnetprep.fs import written_whole
from imnetprep.messages import ImnetprepError
from imnetprep.sources.kaggle import credentials

DRIVE = "drive"
_COLAB_DRIVE = Path("/content/drive")
_TOKEN_FOLDER = Path("~/.kaggle")


def device() -> str:
    """The device that trains here, and the versions of what it runs."""
    from imnetprep.devices.device import described, pick_device

    return "\n".join(f"{name}: {text}" for name, text in described(pick_device(None), 1))


def runs_folder(save: str) -> str | Path | None:
    """Where trainings outlive the runtime: Colab's Drive for "drive", else as `save` names it.

    None, ROOT/runs, where `save` is empty, and for "drive" outside Colab.
    """
    if save != DRIVE:
        return save or None
    if not _is_colab():
        return None
    importlib.import_module("google.colab.drive").mount(str(_COLAB_DRIVE))
    return _COLAB_DRIVE / "MyDrive" / "imnetprep-runs"


def has_kaggle_token() -> bool:
    """Is there a token of Kaggle, in the environment or in a file?"""
    return bool(credentials())


def ask_for_kaggle_token() -> None:
    """Ask for kaggle.json, unless there is a token; it lies in ~/.kaggle when it has come."""
    if not has_kaggle_token():
        upload(_TOKEN_FOLDER.expanduser(), accept=".json", name="kaggle.json")


def upload(folder: str | Path, *, accept: str = "image/*", name: str | None = None) -> None:
    """Ask for files, which only this user may read; they lie in `folder` when they have come.

    `name`: what a file is called here, where its own may be another, as `kaggle (1).json`. Colab
    waits for them, and nobody has to name any. Elsewhere a button is shown, and the notebook
    goes on. Raises ImnetprepError where neither can be.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    if _is_colab():
        files = importlib.import_module("google.colab.files").upload(target_dir=str(place))
        for each in files:
            path = place / Path(each).name
            path.chmod(0o600)
            path.replace(place / (name or path.name))
        return
    _require("ipywidgets", f"or copy the file to {place}")
    widget = importlib.import_module("ipywidgets").FileUpload(accept=accept, multiple=True)

    def keep(change: Any) -> None:
        for each in change["new"]:
            _keep(place / (name or Path(each["name"]).name), bytes(each["content"]))
        if change["new"]:
            widget.value = ()  # or the file would be saved in the notebook

    widget.observe(keep, names="value")
    _ipython().display(widget)


def show(*pictures: str | Path) -> None:
    """Show pictures, PNG or JPEG files, in the notebook."""
    display = _ipython()
    for each in pictures:
        path = Path(each)
        if not path.is_file():
            raise ImnetprepError(f"there is no picture {path}", hint="run the cells above first")
        display.display(display.Image(data=path.read_bytes()))


def files_in(folder: str | Path) -> list[Path]:
    """The files that were uploaded to `folder`, the newest first."""
    files = [path for path in Path(folder).glob("[!.]*") if path.is_file()]
    return sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)


def _keep(path: Path, body: bytes) -> None:
    with written_whole(path) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(body)


def _is_colab() -> bool:
    """Does Colab's own shell run this? Its package is in the images of Kaggle as well."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__module__.startswith("google.colab")


def _ipython() -> Any:
    _require("IPython", "or open this in Jupyter, Colab, Kaggle or SageMaker")
    return importlib.import_module("IPython.display")


def _require(package: str, alternative: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ImnetprepError(
            f"{package} is not installed", hint=f"pip install {package}; {alternative}"
        ) from error
