"""The page as a browser gets it: page.html, and a policy by which it loads nothing from afar."""

import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from imnetprep.serving.requests import Page

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def read_page() -> Page:
    """The page, whose script and style are allowed by their digests (CSP level 3), and no other."""
    text = files("imnetprep.serving").joinpath("page.html").read_text("utf-8")
    digests = {
        kind: b64encode(sha256(body.encode()).digest()).decode()
        for kind, body in _INLINE.findall(text)
    }
    policy = (
        f"default-src 'none'; script-src 'sha256-{digests['script']}';"
        f" style-src 'sha256-{digests['style']}'; img-src 'self' data: blob:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Page(text.encode(), policy)
