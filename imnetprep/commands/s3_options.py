"""The options of a bucket, in the words of AWS, and those of what is synced with one."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

WHAT = ("archives", "shards", "runs", "manifest", "images")
DEFAULT_WHAT = ",".join(WHAT[:-1])


class WhatType(click.ParamType[frozenset[str]]):
    name = "what"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        wanted = [each.strip() for each in str(value).split(",")]
        if unknown := [each for each in wanted if each not in WHAT]:
            self.fail(f"{unknown[0]!r} is none of {', '.join(WHAT)}", param, ctx)
        return frozenset(wanted)


class PricesType(click.ParamType[tuple[float, float]]):
    name = "prices"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            put, get = map(float, value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not two prices such as 0.005,0.0004", param, ctx)
        return put, get


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How the bucket is reached and what objects are made as, in the words of AWS: `settings`."""

    @click.option("--endpoint-url", metavar="URL", help="Of a server that is not AWS.")
    @click.option("--region", metavar="NAME", help="Where the bucket is.")
    @click.option("--profile", metavar="NAME", help="Of ~/.aws; else AWS_PROFILE and the rest.")
    @click.option("--path-style", is_flag=True, help="The bucket in the path, not in the host.")
    @click.option("--accelerate", is_flag=True, help="By transfer acceleration (it costs).")
    @click.option("--dual-stack", is_flag=True, help="By IPv6 where there is.")
    @click.option("--request-payer", is_flag=True, help="You pay, not the bucket's owner.")
    @click.option("--sse", type=click.Choice(["AES256", "aws:kms"]), help="Encrypt objects so.")
    @click.option("--sse-kms-key-id", metavar="ID", help="With this key.")
    @click.option("--storage-class", metavar="CLASS", help="Such as INTELLIGENT_TIERING.")
    @click.option("--tagging", metavar="KEY=VALUE&…", help="Tags of the objects.")
    @wraps(command)
    def gathered(
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
        tagging: str | None,
        **others: Any,
    ) -> Any:
        from imnetprep.s3.settings import Settings

        settings = Settings(
            endpoint_url, region, profile, path_style, accelerate, dual_stack, request_payer,
            sse, sse_kms_key_id, storage_class, tagging,
        )  # fmt: skip
        return command(settings=settings, **others)

    return gathered
