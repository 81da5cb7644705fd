"""Objects of Google Cloud Storage: `gs://BUCKET/KEY`, by its XML API.

A public one is read as it is; for others a token of `gcloud`, or of google-auth, is asked for.
"""

import importlib
import os
import shutil
import subprocess
from urllib.parse import quote

from imnetprep.messages import WrongUsage
from imnetprep.sources.credentials import bearer
from imnetprep.sources.origin import Explanation, Origin, Refusal

EXAMPLE = "gs://my-bucket/imagenet/ILSVRC2012_img_val.tar"
_SITE = "https://storage.googleapis.com"
_WAIT_S = 60


def storage_origin(address: str) -> Origin:
    """The origin of an object. Raises WrongUsage where `address` names none."""
    bucket, _, key = address.removeprefix("gs://").partition("/")
    if not bucket or not key:
        raise WrongUsage(f"{address} names no object", hint=EXAMPLE)
    site = os.environ.get("STORAGE_EMULATOR_HOST", _SITE).removesuffix("/")

    def explain(refusal: Refusal) -> Explanation | None:
        if refusal.status in (401, 403):
            return Explanation(
                f"access denied ({refusal.status})",
                "gcloud auth login, or ask the owner for storage.objects.get",
            )
        if refusal.status == 404:
            return Explanation("there is no such object (404)", f"gcloud storage ls gs://{bucket}")
        return None

    url = f"{site}/{quote(bucket)}/{quote(key)}"
    return Origin(url, address, {}, explain, key.rpartition("/")[2], _token_header)


def _token_header() -> dict[str, str]:
    """Who the user is, once the object was refused to anybody; empty: that is not known here."""
    if token := os.environ.get("GOOGLE_OAUTH_ACCESS_TOKEN"):
        return bearer(token)
    if program := shutil.which("gcloud"):
        process = subprocess.run(
            [program, "auth", "print-access-token"], capture_output=True, text=True, check=False,
            timeout=_WAIT_S,
        )  # fmt: skip
        if process.returncode == 0 and process.stdout.strip():
            return bearer(process.stdout.strip())
    try:
        auth = importlib.import_module("google.auth")
        transport = importlib.import_module("google.auth.transport.urllib3")
        http = importlib.import_module("urllib3").PoolManager()
        scope = "https://www.googleapis.com/auth/devstorage.read_only"
        credentials, _ = auth.default(scopes=[scope])
        credentials.refresh(transport.Request(http))
    except ImportError:
        return {}
    except auth.exceptions.GoogleAuthError:
        return {}
    return bearer(credentials.token)
