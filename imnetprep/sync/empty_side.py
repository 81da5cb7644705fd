"""A side of a sync that has nothing: it is refused with what lies beside, which may be meant."""

from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from imnetprep.catalog.datasets import Root, Split
from imnetprep.messages import ImnetprepError, SourceFailed, shell_command
from imnetprep.s3.address import S3Address
from imnetprep.s3.bucket import Bucket, listed_objects
from imnetprep.sync.keys import MANIFEST, Content
from imnetprep.sync.survey import Survey

_MOST_SHOWN, _MOST_LISTED = 3, 1000


def refuse_absent_root(root: Root, address: S3Address, way: str) -> None:
    """Raise ImnetprepError where `--push` or `--check` names a root that is not there."""
    if way in ("--push", "--check") and not root.path.exists():
        raise _no_local(root, address, way, f"{root.path} is not there")


def refuse_empty_side(survey: Survey, way: str) -> None:
    """Raise ImnetprepError where `--push`, `--pull` or `--check` would compare nothing.

    A check needs both sides, and a plan, for which `way` is empty, one of them.
    """
    root, address, names = survey.root, survey.address, [*map(str, sorted(survey.contents))]
    parts = f"no {' or '.join(filter(None, (', '.join(names[:-1]), names[-1])))}"
    has_manifest = Content.MANIFEST in survey.contents and root.manifest.exists()
    has_local = bool(survey.local or survey.uploads) or has_manifest
    has_remote = bool(survey.remote) or survey.manifest is not None
    if not has_local and (way in ("--push", "--check") or not (way or has_remote)):
        raise _no_local(root, address, way, f"{root.path} has {parts}")
    if not has_remote and way in ("--pull", "--check"):
        raise _no_remote(survey, way, f"there is nothing at {address}: {parts}")


def _no_local(root: Root, address: S3Address, way: str, sentence: str) -> ImnetprepError:
    folder = root.path.absolute()
    siblings = [each.name for each in _roots_in(folder.parent) if each.name != folder.name]
    if names := _nearest(folder.name, siblings):
        words = (("--root", root.path.parent / each, *way.split()) for each in names)
        hint = "; or ".join(shell_command("imnetprep", "sync-s3", address, *each) for each in words)
    elif any(root.split(split).exists() for split in Split):
        hint = "class folders are not sent: imnetprep organize --layout webdataset makes shards"
    else:
        hint = "name the right folder by --root, or fill it first: imnetprep download"
    return ImnetprepError(sentence, hint=hint)


def _roots_in(folder: Path) -> Iterator[Path]:
    """The folders in `folder` that have something to send."""
    tops = (MANIFEST, *(each for each in Content if each is not Content.MANIFEST))
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            if any((path / name).exists() for name in tops):
                yield path


def _no_remote(survey: Survey, way: str, sentence: str) -> ImnetprepError:
    address = survey.address
    addresses = _places_near(survey.bucket, address)
    places = [shell_command("imnetprep", "sync-s3", each, *way.split()) for each in addresses]
    if way == "--check":
        places.append("imnetprep sync-s3 --push sends what is here")
    hint = "; or ".join(places) or shell_command("aws", "s3", "ls", f"{address}/")
    return ImnetprepError(sentence, hint=hint)


def _places_near(bucket: Bucket, address: S3Address) -> list[S3Address]:
    """What was perhaps meant: the root of a part of it, or of prefixes below it or beside it."""
    parent, _, name = address.key.rpartition("/")
    if name in set(Content):
        return [S3Address(address.bucket, parent)]
    with suppress(SourceFailed):  # not all may list what lies above their own prefix
        if children := _folders(bucket, address.key):
            is_root = not set(children).isdisjoint(Content)  # which lacks what was asked for
            return [] if is_root else [address / each for each in children[:_MOST_SHOWN]]
        while True:
            top = S3Address(address.bucket, parent)
            if siblings := _folders(bucket, parent):  # it may be there, and have other objects
                names = [] if name in siblings else _nearest(name, siblings)
                return [top / each for each in names]
            if not parent:
                break
            parent, _, name = parent.rpartition("/")
    return []


def _folders(bucket: Bucket, prefix: str) -> list[str]:
    """The first words of the keys below `prefix`."""
    start = f"{prefix}/" if prefix else ""
    options = {"Prefix": start, "Delimiter": "/", "PaginationConfig": {"MaxItems": _MOST_LISTED}}
    pages = bucket.pages("list_objects_v2", **options)
    names = set[str]()
    for page in pages:
        names |= {each["Prefix"].removeprefix(start) for each in page.get("CommonPrefixes", ())}
        names |= {each.key.removeprefix(start) for each in listed_objects(page)}
    return sorted({name.partition("/")[0] for name in names if "/" in name})


def _nearest(name: str, names: list[str]) -> list[str]:
    """The most alike of `names`; where none is, the first of them."""
    return get_close_matches(name, names, _MOST_SHOWN, 0.5) or names[:_MOST_SHOWN]
