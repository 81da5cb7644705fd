"""What a machine is to do, as `launch.json` has it: decided once, before the machine exists."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from imnetprep.messages import WrongBytes
from imnetprep.outside_text import quoted
from imnetprep.plain_values import plain_text, real_number, table, whole_number
from imnetprep.sessions.session import NAME

GROUP_PREFIX = "imnetprep-"
# So long before its deadline a training is stopped, to be saved and pushed.
SAVED_BEFORE_S = 300.0


@dataclass(frozen=True)
class Orders:
    """The work of one launch, for each machine that takes it up.

    `address`: the place in the bucket that `sync-s3` fills, with `archives/` or `shards/` below it.
    `command`: the verb and its options, without --root and --run. `endpoint_url`: of an S3 server
    that is not AWS. `dataset`: the name of a built-in dataset, or the file of the definition, which
    lies with its side files under `launches/RUN/dataset/`; None: as the bucket's manifest says.
    `wheel`: the file of the package, under `launches/RUN/`. `needed_bytes`: what the data take on
    the machine's disk. `deadline`: Unix time at which everything ends. `types`: the instance types,
    one of which the machine is. `starts`: how many machines may start without progress.
    """

    run: str
    address: str
    command: tuple[str, ...]
    region: str
    types: tuple[str, ...]
    endpoint_url: str | None
    source: str
    dataset: str | None
    dataset_files: tuple[str, ...]
    wheel: str
    wheel_sha256: str
    version: str
    needed_bytes: int
    needs_gpu: bool
    deadline: float
    keep_minutes: int
    push_s: float
    lease_s: float
    starts: int

    @property
    def group(self) -> str:
        """The name of the Auto Scaling group, of its launch template and of the tag."""
        return GROUP_PREFIX + self.run

    def as_json(self) -> str:
        """The text of `launch.json`."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def parse(cls, text: bytes, place: object) -> "Orders":
        """The orders that somebody wrote at `place`. Raises WrongBytes."""
        try:
            values = table(json.loads(text))
            return cls(
                **{field.name: _READ[field.name](values[field.name]) for field in fields(cls)}
            )
        except (ValueError, KeyError, RecursionError) as error:
            raise WrongBytes(
                f"{place} cannot be used: {quoted(str(error))}",
                hint="launch the run under another name: --run NAME",
            ) from error


def run_name(value: object) -> str:
    """A name that a run, a screen session, a group and a key may have. Raises ValueError."""
    text = plain_text(value)
    if not NAME.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a run: letters, digits, - and _, 63 at most")
    return text


def _file_name(value: object) -> str:
    text = plain_text(value)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,200}", text):
        raise ValueError(f"{text!r} is no plain name of a file")
    return text


def _file_path(value: object) -> str:
    """A plain name, or one in a folder of a plain name."""
    return "/".join(map(_file_name, plain_text(value).split("/", 1)))


def _maybe(read: Callable[[object], str]) -> Callable[[object], str | None]:
    return lambda value: None if value is None else read(value)


def _each(read: Callable[[object], str]) -> Callable[[object], tuple[str, ...]]:
    def read_all(value: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{value!r:.40} is no list")
        return tuple(map(read, value))

    return read_all


def _source(value: object) -> str:
    if value not in ("archives", "shards"):
        raise ValueError(f"{value!r:.40} is neither archives nor shards")
    return str(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r:.40} is neither true nor false")
    return value


_READ: Mapping[str, Callable[[object], Any]] = {
    "run": run_name,
    "address": plain_text,
    "command": _each(plain_text),
    "region": plain_text,
    "types": _each(plain_text),
    "endpoint_url": _maybe(plain_text),
    "source": _source,
    "dataset": _maybe(_file_name),
    "dataset_files": _each(_file_path),
    "wheel": _file_name,
    "wheel_sha256": plain_text,
    "version": plain_text,
    "needed_bytes": whole_number,
    "needs_gpu": _flag,
    "deadline": real_number,
    "keep_minutes": whole_number,
    "push_s": real_number,
    "lease_s": real_number,
    "starts": whole_number,
}
