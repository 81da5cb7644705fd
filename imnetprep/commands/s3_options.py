"""The options of a bucket, in the words of AWS, and those of what is synced with one."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

CONTENTS = ("archives", "shards", "runs", "manifest")
DEFAULT_CONTENTS = ",".join(CONTENTS)


class ContentsType(click.ParamType[frozenset[str]]):
    name = "what"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        names = [each.strip() for each in str(value).split(",")]
        if strange := [each for each in names if each not in CONTENTS]:
            self.fail(f"{strange[0]!r} is none of {', '.join(CONTENTS)}", param, ctx)
        return frozenset(names)


class PricesType(click.ParamType[tuple[float, float]]):
    name = "prices"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            put_price, get_price = map(float, value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not two prices such as 0.005,0.0004", param, ctx)
        return put_price, get_price


AWS = (
    "endpoint_url", "region", "profile", "path_style", "accelerate", "dual_stack",
    "request_payer", "sse", "sse_kms_key_id", "storage_class", "tags",
)  # fmt: skip


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How the bucket is reached and what objects are made as, in the words of AWS: `settings`."""

    @click.option("--endpoint-url", metavar="URL", help="Address of an S3 server that is not AWS.")
    @click.option("--region", metavar="NAME", help="Region of the bucket.")
    @click.option("--profile", metavar="NAME", help="Profile of ~/.aws.  [default: AWS_PROFILE]")
    @click.option(
        "--path-style", is_flag=True, help="Name the bucket in the path, not in the host."
    )
    @click.option(
        "--accelerate", is_flag=True, help="Use Transfer Acceleration, which costs extra."
    )
    @click.option("--dual-stack", is_flag=True, help="Use the endpoints that IPv6 reaches too.")
    @click.option("--request-payer", is_flag=True, help="Pay in place of the bucket's owner.")
    @click.option(
        "--sse", type=click.Choice(["AES256", "aws:kms"]), help="Encryption of the objects at rest."
    )
    @click.option("--sse-kms-key-id", metavar="ID", help="The key of --sse aws:kms.")
    @click.option(
        "--storage-class", metavar="CLASS", help="Storage class, such as INTELLIGENT_TIERING."
    )
    @click.option("--tagging", "tags", metavar="KEY=VALUE&…", help="Tags of the objects.")
    @wraps(command)
    def with_settings(
        *,
        endpoint_url: str | None,
        region: str | None,
        profile: str | None,
        path_style: bool,
        accelerate: bool,
        dual_stack: bool,
        request_payer: bool,
        sse: str | None,
        sse_kms_key_id: str | None,
        storage_class: str | None,
        tags: str | None,
        **options: Any,
    ) -> Any:
        from imnetprep.s3.address import Settings

        settings = Settings(
            endpoint_url, region, profile, path_style, accelerate, dual_stack, request_payer,
            sse, sse_kms_key_id, storage_class, tags,
        )  # fmt: skip
        return command(settings=settings, **options)

    return with_settings
