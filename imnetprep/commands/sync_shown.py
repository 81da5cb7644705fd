"""How the plan of a sync looks, and what it costs."""

from collections.abc import Iterable
from datetime import UTC, datetime

import click

from imnetprep.commands.terminal import is_json, print_finding, print_note, print_result
from imnetprep.messages import FINDINGS_EXIT_CODE, Finding, count, format_bytes, format_duration
from imnetprep.sync.plan import Action, Outcome, Step, SyncPlan

_LISTED_BEFORE_SUMMING_UP = 20
_VERBS = {"push": "send", "pull": "fetch"}


def show_plan(
    plan: SyncPlan, rate: float | None, prices: tuple[float, float], *, removes: bool
) -> None:
    """Print each step of a plan, or their sum where they are many; then what they take."""
    _show_steps(plan)
    _show_sum(plan, rate, prices)
    if (deletes := plan.of(Action.DELETE)) and not removes:
        print_note(f"{count(len(deletes), 'file')} to remove: --yes does it")


def _show_steps(plan: SyncPlan) -> None:
    kept_paths = {step.path for step in plan.kept}
    by_action = {action: plan.of(action) for action in Action if plan.of(action)}
    for action, steps in by_action.items():
        lines, summary = list[Step](), list[Step]()
        for step in steps:
            # What is to go, and what differs and stays, is never summed up.
            is_weighty = action is Action.DELETE or step.path in kept_paths
            has_room = len(lines) < _LISTED_BEFORE_SUMMING_UP
            (lines if is_json() or is_weighty or has_room else summary).append(step)
        for step in lines:
            print_result(
                f"{plan.direction}: {action:7} {format_bytes(step.size_bytes):>8}  {step.path}"
                f"  ({step.reason})",
                direction=plan.direction, action=action, file=step.path,
                size_bytes=step.size_bytes, why=step.reason, requests=plan.requests(step),
            )  # fmt: skip
        if summary:
            size_bytes = sum(step.size_bytes for step in summary)
            click.echo(
                f"{plan.direction}: {action:7} {format_bytes(size_bytes):>8}  in"
                f" {count(len(summary), 'file')} more"
            )


def _show_sum(plan: SyncPlan, rate: float | None, prices: tuple[float, float]) -> None:
    moves = [step for step in plan.steps if plan.requests(step)]
    read = [step for step in plan.of(Action.COMPARE) if not plan.requests(step)]
    size_bytes = sum(step.size_bytes for step in moves)
    requests = sum(map(plan.requests, moves))
    cost = requests * prices[plan.direction == "pull"] / 1000  # of a PUT, of a GET
    seconds = size_bytes / (rate or 100e6)
    guess = "" if rate else ", if it is 100 MB/s"
    rest = f"{count(len(plan.of(Action.SKIP)), 'file')} the same already"
    if read:
        read_bytes = sum(step.size_bytes for step in read)
        rest += f"; {count(len(read), 'file')}, {format_bytes(read_bytes)}, to be read here"
    text = (
        f"{plan.direction}: {count(len(moves), 'file')}, {format_bytes(size_bytes)} in"
        f" {count(requests, 'request')} (${cost:.4f}), about"
        f" {format_duration(seconds)}{guess};"
        f" {rest}"
    )
    if not moves:
        text = f"{plan.direction}: 0 files to {_VERBS[plan.direction]}; {rest}"
    print_result(
        text,
        direction=plan.direction, files=len(moves), size_bytes=size_bytes, requests=requests,
        cost_usd=round(cost, 6), seconds=round(seconds), same=len(plan.of(Action.SKIP)),
        read=len(read), unfinished=len(plan.survey.uploads),
    )  # fmt: skip


def show_unfinished(plan: SyncPlan) -> None:
    """The uploads in parts that somebody began: they are paid for, and no listing shows them."""
    actions = {(plan.survey.address / step.path).key: step.action for step in plan.steps}
    for uploads, is_stale in ((plan.survey.uploads, False), (plan.stale, True)):
        for upload in uploads:
            article = "a" if actions.get(upload.key) is Action.SEND else "no"
            verdict = f"{article} push resumes it, --abort-stale removes it"
            verdict = "to abort" if is_stale else verdict
            age = format_duration((datetime.now(UTC) - upload.begun_at).total_seconds())
            size = format_bytes(plan.survey.bucket.stored_bytes(upload))
            print_note(f"unfinished upload of {upload.key}: {size}, {age} old; {verdict}")


def show_findings(findings: Iterable[Finding], files: int, *, deep: bool) -> int:
    """A line each and their sum; the exit code."""
    found = 0
    for finding in findings:
        print_finding(finding)
        found += 1
    depth = "every byte of both sides read" if deep else "sizes and checksums"
    text = f"{count(found, 'finding')} in {count(files, 'file')} ({depth})"
    print_result(text, findings=found, files=files)
    return FINDINGS_EXIT_CODE if found else 0


def show_move(outcome: Outcome) -> None:
    """A line for a file, with the checksum that its bytes have on both sides."""
    step, checksum = outcome.step, ""
    if outcome.checksums:
        whole = outcome.checksums.whole
        checksum = f"{whole.kind} {whole.value:x}"
    proof = f", {checksum}" if checksum else ""
    print_result(
        f"{_PAST_TENSE[outcome.action]} {step.path}: {format_bytes(step.size_bytes)}{proof}",
        file=step.path, done=outcome.action, size_bytes=step.size_bytes, etag=outcome.etag,
        checksum=checksum or None,
    )  # fmt: skip


_PAST_TENSE = {
    "send": "sent",
    "fetch": "fetched",
    "skip": "the same",
    "keep": "kept",
    "delete": "removed",
}
