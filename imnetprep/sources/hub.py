"""Files of the Hugging Face hub: `hf:datasets/OWNER/NAME[@REVISION]/PATH`.

The hub leads to a signed address, and tells the SHA-256 of the file before.
"""

import os
import re
from pathlib import Path
from urllib.parse import quote

from imnetprep.messages import WrongUsage
from imnetprep.outside_text import public_address
from imnetprep.sources.credentials import bearer, bearer_of, home
from imnetprep.sources.origin import Explanation, Origin, Refusal, url_path

EXAMPLE = "hf:datasets/timm/imagenet-1k-wds/imagenet1k-train-0000.tar"
_SITE = "https://huggingface.co"
_REVISION = r"refs/(?:convert|pr)/[\w.-]+|[\w.-]+"
_ADDRESS = re.compile(
    rf"hf:((?:datasets|models|spaces)/[\w.-]+/[\w.-]+)(?:@({_REVISION}))?/(.+)",
    re.ASCII | re.DOTALL,
)


def hub_origin(address: str) -> Origin:
    """The origin of an address of the hub. Raises WrongUsage where it is none."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise WrongUsage(
            f"{address} is no address of a file of the Hugging Face hub",
            hint=f"{EXAMPLE}, or with a revision: hf:datasets/OWNER/NAME@REVISION/PATH",
        )
    repository, revision, path = match[1], match[2] or "main", match[3]
    site = (os.environ.get("HF_ENDPOINT") or _SITE).removesuffix("/")
    name = repository.removeprefix("models/")  # which have no folder of their own
    page = public_address(f"{site}/{name}")

    def explain(refusal: Refusal) -> Explanation | None:
        error, status = refusal.headers.get("X-Error-Code"), refusal.status
        if status == 401:
            hint = f"accept the terms at {page}, then hf auth login, or set HF_TOKEN"
            return Explanation("the hub asks who you are (401)", hint)
        if error == "GatedRepo" or status == 403:
            hint = f"accept the terms at {page}, signed in as the owner of the token"
            return Explanation("your account has no access (403)", hint)
        if status == 404:
            return Explanation("the hub has no such file (404)", f"look at {page}/tree/{revision}")
        return None

    return Origin(
        f"{site}/{name}/resolve/{quote(revision, safe='')}/{url_path(path)}",
        address,
        _headers(),
        explain,
        path.rpartition("/")[2],
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
