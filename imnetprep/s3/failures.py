"""What a bucket refuses or fails to do, as we say it: what happened, and what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import botocore.exceptions as failures
import urllib3.exceptions
from botocore.parsers import ResponseParserError

from imnetprep.messages import ChangedFile, ImnetprepError, SourceFailed, WrongUsage, shell_word
from imnetprep.outside_text import public_address, quoted


class Busy(failures.ClientError):  # type: ignore[misc]
    """An answer that may be another one soon: the server is busy, or lost what it was sent."""


# What may pass: the request is tried again.
TRANSIENT = (
    Busy,
    failures.HTTPClientError,
    failures.EndpointConnectionError,
    failures.ConnectTimeoutError,
    urllib3.exceptions.HTTPError,
)
_BUSY_CODES = ("SlowDown", "InternalError", "RequestTimeout", "RequestTimeoutException")
_BUSY_STATUS = (429, 500, 502, 503, 504)
_ACTIONS = {
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
    "HeadObject": "s3:GetObject (and s3:ListBucket, to tell missing from forbidden)",
    "GetObject": "s3:GetObject (and s3:ListBucket, to tell missing from forbidden)",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
}
_WRITES, _READS = "s3:PutObject", ("ListObjectsV2", "HeadObject", "GetObject")
_DENIED_ACTION = re.compile(r"not authorized to perform: ([a-z0-9-]{1,32}:[A-Za-z]{1,64})")
# In words, or in the host that a redirect names: BUCKET.s3.eu-west-1.amazonaws.com.
_REGION = re.compile(
    r"expecting '([a-z0-9-]+)'|\bs3[.-](?:dualstack\.)?([a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com"
)
_ENDED_SESSION = (failures.SSOError, failures.TokenRetrievalError, failures.LoginError)
_CREDENTIALS = (
    failures.NoCredentialsError,
    failures.PartialCredentialsError,
    failures.CredentialRetrievalError,
)
_NETWORK = (
    EOFError,
    failures.HTTPClientError,
    failures.ConnectionError,
    urllib3.exceptions.HTTPError,
)
_IDENTITY_HINT = "aws sts get-caller-identity shows who you are"
_RETRY_HINT = "run the same command again; it resumes where it stopped"
_LOGIN_HINT = "log in again (aws sso login), then run the same command; it resumes"
_BUSY_HINT = "run the same command later, or with fewer --jobs; it resumes where it stopped"
_FULL_HINT = "the server has no room left: free some there, then run the same command; it resumes"
_OPTIONS_HINT = (
    "the server does not take what was asked for: look at --sse, --sse-kms-key-id, --storage-class,"
    " --tagging and --endpoint-url"
)
_MOVED_HINT = (
    "aws s3api get-bucket-location --bucket {bucket} names its region, for AWS_DEFAULT_REGION;"
    " the owner of another server, its AWS_ENDPOINT_URL"
)
_PUBLIC_HINT = "; or --no-sign-request if the bucket is public"
# Of whoever reads: the bucket may be open to all, or to all who pay.
_OPEN_HINT = f"{_PUBLIC_HINT}, --request-payer if its reader pays"
# By the code; of an answer without a body (to HEAD), or of another code, by the status.
_MENDS = {
    "401": _IDENTITY_HINT,
    "InvalidAccessKeyId": f"AWS_ACCESS_KEY_ID or the profile is another server's; {_IDENTITY_HINT};"
    " to read a public bucket, say --no-sign-request",
    "SignatureDoesNotMatch": f"the secret key is not that of the access key; {_IDENTITY_HINT}",
    "ExpiredToken": _LOGIN_HINT,
    "ExpiredTokenException": _LOGIN_HINT,
    "TokenRefreshRequired": _LOGIN_HINT,
    "InvalidToken": _LOGIN_HINT,
    "RequestTimeTooSkewed": "set this machine's clock (timedatectl set-ntp true)",
    "NoSuchBucket": "aws s3 mb s3://{bucket} makes it, aws s3 ls shows those there are",
    "NoSuchUpload": "somebody aborted this upload: run the same command, it begins another",
    "404": "aws s3 ls {folder} shows what is there; run the same command again",
    "InvalidObjectState": "it is in an archive class: aws s3api restore-object --bucket {bucket}"
    " --key {key} --restore-request Days=7 brings it back",
    "PermanentRedirect": _MOVED_HINT,
    "301": _MOVED_HINT,
    "302": _MOVED_HINT,
    "307": _MOVED_HINT,
    "308": _MOVED_HINT,
    "SlowDown": _BUSY_HINT,
    "429": _BUSY_HINT,
    "503": _BUSY_HINT,
    "InsufficientStorage": _FULL_HINT,
    "XMinioStorageFull": _FULL_HINT,
    "XMinioAdminBucketQuotaExceeded": _FULL_HINT,
    "QuotaExceeded": _FULL_HINT,
    "507": _FULL_HINT,
    "400": _OPTIONS_HINT,
    "501": _OPTIONS_HINT,
}
_SAYS = {
    "ExpiredToken": "your session has expired",
    "RequestTimeTooSkewed": "the clock of this machine is not that of the server",
    "NoSuchBucket": "there is no such bucket",
}


@contextmanager
def explained(place: object) -> Iterator[None]:
    """What botocore says of a failure at `place` in a bucket, as we say it."""
    with unanswered(place, mend="--endpoint-url or AWS_ENDPOINT_URL", public=_PUBLIC_HINT):
        try:
            yield
        except failures.ClientError as error:
            raise _refusal(place, error) from error
        except ResponseParserError as error:
            raise SourceFailed(
                f"{place}: the answer is not one of S3: {quoted(str(error))}",
                hint="check --endpoint-url, or AWS_ENDPOINT_URL",
            ) from error


@contextmanager
def unanswered(request: object, *, mend: str, public: str = "") -> Iterator[None]:
    """What botocore says where no server answers a `request`, as we say it.

    `mend`: the settings that say which server that is; `public`: what helps without credentials.
    """
    try:
        yield
    except failures.ProfileNotFound as error:
        raise ImnetprepError(
            quoted(str(error)), hint="aws configure list-profiles shows those there are"
        ) from error
    except _ENDED_SESSION as error:
        raise ImnetprepError(
            f"your session with AWS has ended: {quoted(str(error))}", hint=_LOGIN_HINT
        ) from error
    except _CREDENTIALS as error:
        raise ImnetprepError(
            f"no AWS credentials for {request}: {quoted(str(error))}",
            hint="aws configure, or aws sso login; or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and"
            f" AWS_SECRET_ACCESS_KEY{public}",
        ) from error
    except failures.SSLError as error:
        raise SourceFailed(
            f"{_server(error)} is not trusted: {quoted(str(error.kwargs['error']))}",
            hint="AWS_CA_BUNDLE=FILE names the certificate of who signed the server's",
        ) from error
    except (failures.EndpointConnectionError, failures.ConnectTimeoutError) as error:
        raise SourceFailed(
            f"{request}: no connection to {_server(error)}",
            hint=f"check the network, and {mend}; run the same command to resume",
        ) from error
    except _NETWORK as error:
        raise SourceFailed(
            f"{request}: {quoted(str(error))}",
            hint="check the network; run the same command to resume",
        ) from error
    except failures.BotoCoreError as error:
        raise WrongUsage(
            f"{request}: {quoted(str(error))}",
            hint="check the address, the options, the AWS_… variables and ~/.aws/config",
        ) from error


def client_error(answer: Any, operation: str) -> failures.ClientError:
    """The exception for a parsed answer; Busy where the same request may soon fare better."""
    busy = is_busy(answer, answer["ResponseMetadata"]["HTTPStatusCode"])
    return (Busy if busy else failures.ClientError)(answer, operation)


def is_busy(answer: Any, status: int) -> bool:
    """May the same request soon fare better?"""
    return answer.get("Error", {}).get("Code") in _BUSY_CODES or status in _BUSY_STATUS


def code_of(error: failures.ClientError) -> str:
    """`NoSuchUpload`, `BadDigest`, … or the HTTP status of an answer without a body."""
    return str(error.response["Error"].get("Code"))


def status_of(error: failures.ClientError) -> int:
    """The HTTP status."""
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def has_met(error: failures.ClientError) -> bool:
    """Has somebody else written the object, before or at the same time?"""
    return status_of(error) == 412 or code_of(error) == "ConditionalRequestConflict"


def _refusal(place: object, error: failures.ClientError) -> ImnetprepError:
    code, status = code_of(error), str(status_of(error))
    if status == "412":
        return ChangedFile(
            f"{place} has changed meanwhile",
            hint="run the same command again: what was made of the old one is dropped",
        )
    if region := _region_of(error):
        return SourceFailed(
            f"{place}: the bucket is in {region}", hint=f"set AWS_DEFAULT_REGION={region}"
        )
    message = quoted(str(error.response["Error"].get("Message") or code))
    text, mend = _SAYS.get(code, message), _MENDS.get(code) or _MENDS.get(status)
    if code in ("AccessDenied", "403") or (status == "403" and mend is None):
        denial = _DENIED_ACTION.search(message)
        action = denial[1] if denial else _ACTIONS.get(error.operation_name, _WRITES)
        if action.startswith("kms:"):
            action = "kms:GenerateDataKey and kms:Decrypt for the key of that bucket"
        way = _OPEN_HINT if error.operation_name in _READS else ""
        mend = f"your credentials need {action}{way}; {_IDENTITY_HINT}"
        text = f"access denied to {error.operation_name}" + (f": {message}" if denial else "")
    if endpoint := error.response["Error"].get("Endpoint"):
        text = f"{text}: {quoted(str(endpoint))}"
    bucket, _, key = str(place).removeprefix("s3://").partition("/")
    folder = shell_word(f"{str(place).rpartition('/')[0]}/")
    mend = (mend or _RETRY_HINT).format(folder=folder, bucket=bucket, key=key)
    return SourceFailed(f"{place}: {text} ({status})", hint=mend)


def _server(error: failures.BotoCoreError) -> str:
    """Scheme, host and port of the URL that failed."""
    url = urlsplit(public_address(str(error.kwargs["endpoint_url"])))
    return f"{url.scheme}://{url.netloc}"


def _region_of(error: failures.ClientError) -> str | None:
    """Where the bucket is, if that is what the answer has to say."""
    status, code = status_of(error), code_of(error)
    is_moved = 301 <= status <= 308 or code == "PermanentRedirect"
    if not is_moved and code not in ("AuthorizationHeaderMalformed", "IllegalLocation"):
        return None
    headers = error.response["ResponseMetadata"].get("HTTPHeaders", {})
    fields = error.response["Error"]
    region = headers.get("x-amz-bucket-region") or fields.get("Region")
    if region is None:
        text = f"{fields.get('Message')} {fields.get('Endpoint')} {headers.get('location')}"
        found = _REGION.search(text)
        region = found and (found[1] or found[2])
    return str(region) if region and re.fullmatch(r"[a-z0-9-]{1,64}", str(region)) else None
