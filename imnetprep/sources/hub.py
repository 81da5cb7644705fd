"""Files of the Hugging Face hub: `hf:datasets/OWNER/NAME[@REVISION]/PATH`.

The hub leads to a signed address, and tells the SHA-256 of the file before.
"""

import json
import os
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from imnetprep.messages import SourceFailed, WrongUsage
from imnetprep.outside_text import public_address
from imnetprep.plain_values import plain_text, table
from imnetprep.sources.credentials import bearer, bearer_of, home
from imnetprep.sources.origin import Explanation, Origin, Refusal, url_path

_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')
EXAMPLE = "hf:datasets/timm/imagenet-1k-wds/imagenet1k-train-0000.tar"
_SITE = "https://huggingface.co"
_REVISION = r"refs/(?:convert|pr)/[\w.-]+|[\w.-]+"
_ADDRESS = re.compile(
    rf"hf:((?:datasets|models|spaces)/[\w.-]+/[\w.-]+)(?:@({_REVISION}))?(?:/(.*))?",
    re.ASCII | re.DOTALL,
)


def site() -> str:
    """The address of the hub, or of the mirror that HF_ENDPOINT names."""
    return (os.environ.get("HF_ENDPOINT") or _SITE).removesuffix("/")


class _Place(NamedTuple):
    """What an address of the hub names: the path may be empty."""

    site: str
    repository: str  # with the folder that models have not
    revision: str
    path: str

    @property
    def page(self) -> str:
        """The page of the repository, for people."""
        return public_address(f"{self.site}/{self.repository.removeprefix('models/')}")

    def explain(self, refusal: Refusal) -> Explanation | None:
        """As `Origin.explain`."""
        error, status = refusal.headers.get("X-Error-Code"), refusal.status
        if status == 401:
            hint = f"accept the terms at {self.page}, then hf auth login, or set HF_TOKEN"
            return Explanation("the hub asks who you are (401)", hint)
        if error == "GatedRepo" or status == 403:
            hint = f"accept the terms at {self.page}, signed in as the owner of the token"
            return Explanation("your account has no access (403)", hint)
        if status == 404:
            hint = f"look at {self.page}/tree/{self.revision}"
            return Explanation("the hub has no such file (404)", hint)
        return None


def hub_origin(address: str) -> Origin:
    """The origin of an address of the hub. Raises WrongUsage where it is none."""
    place = _place(address)
    if not place.path:
        raise _no_address(address)
    name, revision = place.repository.removeprefix("models/"), quote(place.revision, safe="")
    return Origin(
        f"{place.site}/{name}/resolve/{revision}/{url_path(place.path)}",
        address,
        _headers(),
        place.explain,
        place.path.rpartition("/")[2],
    )


def listing_origin(address: str) -> Origin:
    """The origin of the first page of what lies in a folder of the hub, as its API lists it."""
    place = _place(address)
    revision = quote(place.revision, safe="")
    url = f"{place.site}/api/{place.repository}/tree/{revision}/{url_path(place.path)}"
    return Origin(url.removesuffix("/"), address, _headers(), place.explain)


def parse_listing(body: bytes, address: str) -> list[str]:
    """The names of the files on a page of a listing. Raises SourceFailed where it is none."""
    try:
        entries = [table(each) for each in json.loads(body)]
        paths = [plain_text(each["path"]) for each in entries if each["type"] == "file"]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise SourceFailed(
            f"{address}: the hub lists its files in no known form",
            hint="name one file of it, with its path",
        ) from error
    return [path.rpartition("/")[2] for path in paths]


def next_page(link: str) -> str | None:
    """The address of the next page of a listing, by the header Link (RFC 8288), if there is one."""
    match = _NEXT.search(link)
    return match and match[1]


def _place(address: str) -> _Place:
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise _no_address(address)
    return _Place(site(), match[1], match[2] or "main", (match[3] or "").strip("/"))


def _no_address(address: str) -> WrongUsage:
    return WrongUsage(
        f"{address} is no address of a file of the Hugging Face hub",
        hint=f"{EXAMPLE}, or with a revision: hf:datasets/OWNER/NAME@REVISION/PATH",
    )


def _headers() -> dict[str, str]:
    """Who the user is, as the hub's own programs find out; empty: anybody.

    Raises ImnetprepError on a token that is none.
    """
    if token := os.environ.get("HF_TOKEN"):
        return bearer(token, "HF_TOKEN")
    folder = Path(os.environ.get("HF_HOME") or home() / ".cache" / "huggingface")
    path = Path(os.environ.get("HF_TOKEN_PATH") or folder / "token")
    return bearer_of(path) if path.is_file() else {}
