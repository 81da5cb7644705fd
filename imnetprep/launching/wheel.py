"""The wheel of the version that runs here: what a machine installs is what the laptop has.

Written from the installed files or the checkout without a build tool or the network. One version of
the files gives the same bytes each time, so that a launch that is repeated finds its own wheel.
"""

import base64
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import imnetprep
from imnetprep.messages import ImnetprepError

_NAME = "imnetprep"
_LEFT_OUT = ("__pycache__", ".pyc", ".pyo")
_OLDEST = (1980, 1, 1, 0, 0, 0)  # the first date that a zip can have
_WHEEL = f"Wheel-Version: 1.0\nGenerator: {_NAME}\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@dataclass(frozen=True)
class Wheel:
    """A wheel: the name of its file, and its bytes."""

    name: str
    body: bytes

    @property
    def sha256(self) -> str:
        """The SHA-256 of its bytes, as hex."""
        return hashlib.sha256(self.body).hexdigest()


def build_wheel() -> Wheel:
    """The wheel of this version. Raises ImnetprepError where it was never installed."""
    try:
        source = distribution(_NAME)
    except PackageNotFoundError as error:
        raise ImnetprepError(
            f"{_NAME} runs from {Path(imnetprep.__file__).parent} and was never installed: what it"
            " needs is not known",
            hint="python -m pip install -e . in the checkout",
        ) from error
    info = f"{_NAME}-{imnetprep.__version__}.dist-info"
    files = {**dict(_package_files()), **dict(_info_files(info, source))}
    rows = [f"{name},sha256={_digest(body)},{len(body)}\n" for name, body in files.items()]
    files[f"{info}/RECORD"] = f"{''.join(rows)}{info}/RECORD,,\n".encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, body in files.items():
            entry = zipfile.ZipInfo(name, _OLDEST)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            archive.writestr(entry, body)
    return Wheel(f"{_NAME}-{imnetprep.__version__}-py3-none-any.whl", stream.getvalue())


def _package_files() -> Iterator[tuple[str, bytes]]:
    package = Path(imnetprep.__file__).parent
    for path in sorted(package.rglob("*")):
        name = str(path.relative_to(package.parent))
        if path.is_file() and not any(part in name for part in ("/.", *_LEFT_OUT)):
            yield name, path.read_bytes()


def _info_files(info: str, source: Distribution) -> Iterator[tuple[str, bytes]]:
    """What pip reads of a wheel: what it needs, what it puts on the PATH, and its licence."""
    metadata = source.read_text("METADATA") or source.read_text("PKG-INFO") or ""
    version = f"Version: {imnetprep.__version__}"  # of a checkout that was updated since
    yield f"{info}/METADATA", re.sub(r"(?m)^Version: .*$", version, metadata, count=1).encode()
    yield f"{info}/WHEEL", _WHEEL.encode()
    for name in ("entry_points.txt", "licenses/LICENSE"):
        if text := source.read_text(name):
            yield f"{info}/{name}", text.encode()


def _digest(body: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
