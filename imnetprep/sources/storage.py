"""Objects of Google Cloud Storage: `gs://BUCKET/KEY`, by its XML API.

A public one is read as it is; for others a token of `gcloud`, or of google-auth, is asked for.
"""

import importlib
import os
import shutil
import subprocess
from contextlib import suppress

from imnetprep.messages import WrongUsage
from imnetprep.outside_text import public_address
from imnetprep.sources.credentials import bearer
from imnetprep.sources.origin import Explanation, Origin, Refusal, url_path

EXAMPLE = "gs://my-bucket/imagenet/ILSVRC2012_img_val.tar"
_SITE = "https://storage.googleapis.com"
_WAIT_S = 60


def storage_origin(address: str) -> Origin:
    """The origin of an object. Raises WrongUsage where `address` names none."""
    bucket, _, key = address.removeprefix("gs://").partition("/")
    if not bucket or not key:
        raise WrongUsage(f"{address} names no object", hint=EXAMPLE)
    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "").removesuffix("/")
    site = emulator if "://" in emulator else f"http://{emulator}" if emulator else _SITE

    def explain(refusal: Refusal) -> Explanation | None:
        if refusal.status in (401, 403):
            return Explanation(
                f"access denied ({refusal.status})",
                "gcloud auth login, or ask the owner for storage.objects.get",
            )
        if refusal.status == 404:
            return Explanation("there is no such object (404)", f"gcloud storage ls gs://{bucket}")
        return None

    return Origin(
        f"{site}/{url_path(bucket)}/{url_path(key)}",
        public_address(address),
        {},
        explain,
        key.rpartition("/")[2],
        dict if emulator else _token_header,  # a token of Google is no business of an emulator
    )


def _token_header() -> dict[str, str]:
    """Who the user is, once the object was refused to anybody; empty: that is not known here."""
    if token := os.environ.get("GOOGLE_OAUTH_ACCESS_TOKEN"):
        return bearer(token, "GOOGLE_OAUTH_ACCESS_TOKEN")
    if program := shutil.which("gcloud"):
        words = [program, "auth", "print-access-token"]
        with suppress(OSError, subprocess.SubprocessError, UnicodeDecodeError):
            answer = subprocess.check_output(
                words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
                timeout=_WAIT_S,
            )  # fmt: skip
            return bearer(answer, "what gcloud auth print-access-token says")
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
    return bearer(credentials.token, "google-auth")
