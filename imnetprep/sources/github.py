"""Files of GitHub: `github:OWNER/NAME[@REF]`, the sources as a tar, or one of a release.

The tar is made as it is asked for: it has no length, and no byte ranges.
"""

import re
from urllib.parse import quote

from imnetprep.messages import WrongUsage
from imnetprep.sources.origin import Explanation, Origin, Refusal, url_path

EXAMPLE = "github:fastai/imagenette@master"
_SITE, _TARS = "https://github.com", "https://codeload.github.com"
_ADDRESS = re.compile(r"github:([\w.-]+)/([\w.-]+)(?:@([\w./+-]+))?(?:#([^/]+))?", re.ASCII)


def github_origin(address: str) -> Origin:
    """The origin of a tar of sources, or of FILE of a release: `github:OWNER/NAME@TAG#FILE`.

    Raises WrongUsage where it is no address of GitHub.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise WrongUsage(
            f"{address} is no address of GitHub",
            hint=f"{EXAMPLE}, or a file of a release: github:OWNER/NAME@TAG#FILE",
        )
    owner, name, ref, file = match[1], match[2], match[3] or "HEAD", match[4]
    page = f"{_SITE}/{owner}/{name}"

    url = f"{_TARS}/{owner}/{name}/tar.gz/{quote(ref)}"
    own_name = f"{name}-{ref.replace('/', '-')}.tar.gz"  # as GitHub calls it
    if file:
        release = "latest/download" if ref == "HEAD" else f"download/{quote(ref)}"
        url, own_name = f"{_SITE}/{owner}/{name}/releases/{release}/{url_path(file)}", file

    def explain(refusal: Refusal) -> Explanation | None:
        if refusal.status == 404:
            return Explanation("GitHub has no such file, or it is private (404)", f"look at {page}")
        return None

    return Origin(url, address, {}, explain, own_name)
