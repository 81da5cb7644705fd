"""Files of the Hugging Face hub: `hf:datasets/OWNER/NAME[@REVISION]/PATH`.

The hub leads to a signed address, and tells the SHA-256 of the file before.
"""

import os
import re
from pathlib import Path
from urllib.parse import quote

from imnetprep.messages import WrongUsage
from imnetprep.sources.credentials import bearer
from imnetprep.sources.origin import Explanation, Origin, Refusal

EXAMPLE = "hf:datasets/timm/imagenet-1k-wds/imagenet1k-train-0000.tar"
_SITE = "https://huggingface.co"
_ADDRESS = re.compile(r"hf:((?:datasets|models|spaces)/[\w.-]+/[\w.-]+)(?:@([\w./-]+?))?/(.+)")


def hub_origin(address: str) -> Origin:
    """The origin of an address of the hub. Raises WrongUsage where it is none."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise WrongUsage(
            f"{address} is no address of a file of the Hugging Face hub",
            hint=f"{EXAMPLE}, or with a revision: hf:datasets/OWNER/NAME@REVISION/PATH",
        )
    repository, revision, path = match[1], match[2] or "main", match[3]
    site = os.environ.get("HF_ENDPOINT", _SITE).removesuffix("/")
    name = repository.removeprefix("models/")  # which have no folder of their own
    page = f"{site}/{name}"

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

    token = _token()
    return Origin(
        f"{page}/resolve/{quote(revision, safe='')}/{quote(path)}",
        address,
        bearer(token) if token else {},
        explain,
        path.rpartition("/")[2],
    )


def _token() -> str:
    """The token of the user, where the hub's own programs have it; empty: none."""
    if token := os.environ.get("HF_TOKEN"):
        return token
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    path = Path(os.environ.get("HF_TOKEN_PATH") or home / "token")
    return path.read_text().strip() if path.is_file() else ""
