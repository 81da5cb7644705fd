"""Files of Google Drive: `gdrive:ID`, or the link that its `Share` gives.

Its pages stand in the way of bytes, with status 200: one is that a virus cannot be looked for in a
large file, which `confirm=t` answers; another that too many have fetched it.
"""

import re
from urllib.parse import parse_qs, quote, urlsplit

from imnetprep.messages import WrongUsage
from imnetprep.outside_text import public_address
from imnetprep.sources.origin import Explanation, Origin, Refusal

EXAMPLE = "gdrive:1AbCdEfGhIjKlMnOpQrStUvWxYz0123456"
_SITE = "https://drive.usercontent.google.com"
_HOSTS = ("drive.google.com", "drive.usercontent.google.com")
_ID = re.compile(r"[A-Za-z0-9_-]{10,100}")
_IS_QUOTA = re.compile(rb"Too many users|[Qq]uota exceeded")


def is_share_link(address: str) -> bool:
    """Is `address` one of a file of Drive, as people send it?"""
    return address.startswith("https://") and urlsplit(address).hostname in _HOSTS


def drive_origin(address: str) -> Origin:
    """The origin of an address of Drive. Raises WrongUsage where it names no file."""
    file, key = address.removeprefix("gdrive:"), ""
    if is_share_link(address):
        parts = urlsplit(address)
        match, query = re.search(r"/d/([\w-]+)", parts.path), parse_qs(parts.query)
        file = match[1] if match else query.get("id", [""])[0]
        key = query.get("resourcekey", [""])[0]  # of links from before 2021
    if not _ID.fullmatch(file):
        raise WrongUsage(
            f"{public_address(address)} names no file of Google Drive",
            hint=f"{EXAMPLE}, or the link of one file that Share gives; a folder has none",
        )

    def explain(refusal: Refusal) -> Explanation | None:
        if _IS_QUOTA.search(refusal.body):
            return Explanation(
                "too many have fetched it lately, and Google refuses it for up to 24 hours",
                "make a copy in a Drive of your own, and take that one; or another place",
            )
        if refusal.status in (200, 401, 403, 404):
            return Explanation(
                f"Google sends a page, not the file ({refusal.status})",
                "share it with 'Anyone with the link'; a browser shows what the page says",
            )
        return None

    url = f"{_SITE}/download?id={file}&export=download&confirm=t"
    url += f"&resourcekey={quote(key)}" if key else ""
    return Origin(url, f"gdrive:{file}", {}, explain)
