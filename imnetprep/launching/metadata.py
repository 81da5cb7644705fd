"""What EC2 tells a machine of itself by IMDSv2: its name, and that it is about to be taken back."""

import json
import os
from dataclasses import dataclass
from datetime import datetime

import urllib3

from imnetprep.messages import SourceFailed
from imnetprep.plain_values import plain_text, table

_ADDRESS = "http://169.254.169.254"
_ADDRESS_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"  # as botocore has it
_TOKEN_S = 21600
# A busy machine answers late; one that cannot say its own name is given up.
_WAIT_S, _TRIES = 5.0, 5


@dataclass(frozen=True)
class Notice:
    """EC2 takes the machine back `at` (Unix time); `action`: terminate, stop or hibernate."""

    action: str
    at: float


class MetadataService:
    """The service of the machine that this process runs on. Its methods raise SourceFailed."""

    def __init__(self) -> None:
        self._address = os.environ.get(_ADDRESS_VARIABLE, _ADDRESS).rstrip("/")
        # No proxy is asked, whatever the environment says: none can reach a link-local address.
        retries = urllib3.Retry(_TRIES, redirect=False, backoff_factor=0.2)
        self._http = urllib3.PoolManager(timeout=_WAIT_S, retries=retries)
        self._token = ""

    def instance_id(self) -> str:
        """The name of the machine: `i-0123…`."""
        return self._required("instance-id")

    def instance_type(self) -> str:
        """The type of the machine: `g5.2xlarge`."""
        return self._required("instance-type")

    def zone(self) -> str:
        """The availability zone: `us-east-1a`."""
        return self._required("placement/availability-zone")

    def notice(self) -> Notice | None:
        """When EC2 takes the machine back, told some two minutes ahead; None: nothing is said."""
        text = self._text("spot/instance-action")
        if text is None:
            return None
        try:
            values = table(json.loads(text))
            at = datetime.fromisoformat(plain_text(values["time"])).timestamp()
            return Notice(plain_text(values["action"]), at)
        except (ValueError, KeyError):  # a notice that cannot be read is one all the same
            return Notice("terminate", datetime.now().timestamp())

    def is_at_risk(self) -> bool:
        """Does EC2 say that it may take the machine back before long? It need not."""
        return self._text("events/recommendations/rebalance") is not None

    def _required(self, name: str) -> str:
        text = self._text(name)
        if text is None:
            raise SourceFailed(
                f"the metadata service says nothing of {name}", hint="run it on a machine of EC2"
            )
        return text

    def _text(self, name: str) -> str | None:
        """What is said at `name`; None where nothing is."""
        for _ in range(2):  # a token runs out
            if not self._token:
                ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_S)}
                self._token = self._ask("PUT", "api/token", ttl)[1]
            token = {"X-aws-ec2-metadata-token": self._token}
            status, text = self._ask("GET", f"meta-data/{name}", token)
            if status == 404:
                return None
            if status == 200:
                return text
            self._token = ""
        raise _no_answer(f"{self._address} answers {status}")

    def _ask(self, method: str, name: str, headers: dict[str, str]) -> tuple[int, str]:
        try:
            url = f"{self._address}/latest/{name}"
            answer = self._http.request(method, url, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            raise _no_answer(f"{self._address} does not answer") from error
        return answer.status, answer.data.decode(errors="replace")


def _no_answer(sentence: str) -> SourceFailed:
    return SourceFailed(
        f"no metadata of this machine: {sentence}", hint="run it on a machine of EC2"
    )
