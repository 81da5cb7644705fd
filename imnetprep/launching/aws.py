"""The services of AWS in one region, as botocore's clients; what they refuse, as we say it."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import botocore.exceptions as failures
import botocore.session
from botocore.config import Config

from imnetprep.launching.refusals import Refusal, explain
from imnetprep.messages import SourceFailed, WrongUsage
from imnetprep.outside_text import quoted
from imnetprep.s3.failures import unanswered

# The one region of those with an endpoint for prices that needs no choice.
PRICES_REGION = "us-east-1"
_CONFIG = Config(
    connect_timeout=10, read_timeout=30, retries={"mode": "standard", "max_attempts": 5}
)
_MEND = "HTTPS_PROXY or AWS_ENDPOINT_URL"


class Aws:
    """AWS as one account has it in one region. Its methods raise ImnetprepError."""

    def __init__(self, *, region: str | None = None, profile: str | None = None) -> None:
        self._session = botocore.session.Session(profile=profile)
        self._clients: dict[str, Any] = {}
        with unanswered("AWS", mend=_MEND):
            name = region or self._session.get_config_variable("region")
        if not name:
            raise WrongUsage(
                "no region is named in which the machine would run",
                hint="--region us-east-1, or AWS_DEFAULT_REGION=us-east-1",
            )
        self.region = str(name)

    def client(self, service: str) -> Any:
        """The client of a service: `ec2`, `autoscaling`, `iam`, `ssm`, …"""
        if service not in self._clients:
            with unanswered(service, mend=_MEND):
                try:
                    self._clients[service] = self._session.create_client(
                        service,
                        region_name=PRICES_REGION if service == "pricing" else self.region,
                        config=_CONFIG,
                    )
                except ValueError as error:  # of a URL without a scheme, or a region with a space
                    raise WrongUsage(
                        quoted(str(error)), hint="--region is like eu-west-1, a URL like https://…"
                    ) from error
        return self._clients[service]

    def call(self, service: str, operation: str, **params: Any) -> Any:
        """The answer to one operation: `call("ec2", "describe_images", ImageIds=[…])`."""
        client = self.client(service)
        with self._explained(client, operation):
            return getattr(client, operation)(**params)

    def items(self, service: str, operation: str, field: str, **params: Any) -> Iterator[Any]:
        """The entries of `field` in all pages of a listing."""
        client = self.client(service)
        with self._explained(client, operation):
            if not client.can_paginate(operation):
                yield from getattr(client, operation)(**params)[field]
                return
            for page in client.get_paginator(operation).paginate(**params):
                yield from page[field]

    @contextmanager
    def _explained(self, client: Any, operation: str) -> Iterator[None]:
        """What botocore says of a failed operation, as we say it."""
        model = client.meta.service_model
        action = f"{model.service_name}:{client.meta.method_to_api_mapping[operation]}"
        with unanswered(action, mend=_MEND):
            try:
                yield
            except failures.ClientError as error:
                raise _refusal(error, action, self.region) from error
            except failures.EndpointConnectionError as error:
                regions = self._regions()
                if self.region in regions:
                    raise
                close = get_close_matches(self.region, regions, 1)
                raise SourceFailed(
                    quoted(str(error)),
                    hint=f"{self.region} is no region that is known here: "
                    + (f"--region {close[0]}" if close else "another --region"),
                ) from error

    def _regions(self) -> list[str]:
        """The regions that this version of botocore lists for EC2."""
        partitions = self._session.get_available_partitions()
        return [
            region
            for each in partitions
            for region in self._session.get_available_regions("ec2", partition_name=each)
        ]


def _refusal(error: failures.ClientError, action: str, region: str) -> Refusal:
    answer = error.response.get("Error", {})
    code, message = str(answer.get("Code")), str(answer.get("Message"))
    sentence, hint = explain(f"{code}: {message}", region=region, action=action)
    refusal = Refusal(sentence, hint=hint)
    refusal.code = code
    return refusal
