"""The supervisor of a machine: a root made from the bucket, a training, its pushes, and the end.

    python -m imnetprep.launching.supervisor session s3://BUCKET/PREFIX RUN FOLDER

runs it in a session called RUN and returns when that is over, however it came. What ends for good
is written down as `done`, and the group of the machine set to nothing. Whatever else ends the
supervisor turns the machine off, and the group starts the next one, which resumes.

The events: `starts`, `stage` (checks, lease, pull, data, verify, train), `push` (the first, the
last and each that failed), `progress` (once a machine has pushed more than it found), `interrupted`
and `failed` (the next machine resumes), `ended` (for good).
"""

import json
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from imnetprep.catalog.datasets import Root
from imnetprep.fs import require_free
from imnetprep.launching.aws import Aws
from imnetprep.launching.contents import rate_name
from imnetprep.launching.folder import Ending, LaunchFolder
from imnetprep.launching.metadata import MetadataService
from imnetprep.launching.orders import GROUP_PREFIX, Orders
from imnetprep.launching.user_data import LOG
from imnetprep.launching.watch import Cause, Child, Watch, note
from imnetprep.messages import (
    OUR_BUG_EXIT_CODE,
    TERMINATED_EXIT_CODE,
    ImnetprepError,
    Silent,
    SourceFailed,
    WrongBytes,
)
from imnetprep.outside_text import quoted
from imnetprep.plain_values import real_number
from imnetprep.reports.log import epoch_lines
from imnetprep.s3.address import Settings, parse_s3_address
from imnetprep.s3.bucket import Bucket
from imnetprep.s3.failures import explained
from imnetprep.sessions.multiplexer import start_session
from imnetprep.sessions.session import session_folder, wait_for_end
from imnetprep.training.runs import Run

# EC2 does not charge the first hour of a machine that it takes back itself: that is waited for.
_TAKEN_BACK_S = 900.0
_RATE_STEPS = 100  # of fewer the first, slow ones are too large a part
_TO_NOTHING = {"MinSize": 0, "MaxSize": 0, "DesiredCapacity": 0}
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class EarlyEnd(Exception):
    """The work ended early, and what could be saved is."""


class Failure(Exception):
    """The work failed, and would on any other machine."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Supervisor:
    """One start of a machine, from its first look at the bucket to how it ended."""

    def __init__(self, folder: LaunchFolder, orders: Orders, place: Path, *, logs: Sequence[Path]):
        self._folder, self._orders, self._root = folder, orders, Root(place)
        self._run = Run(self._root.run(orders.run))
        self._metadata = MetadataService()
        self._instance = self._metadata.instance_id()
        self._push: Child | None = None  # the one under way
        self._push_at_s = self._push_began_s = 0.0
        self._pushes = 0
        self._start_position = self._push_position = (0, 0)
        self._has_progress = self._has_rate = False
        self.watch = Watch(folder, orders, self._metadata, logs)

    def story(self) -> Ending:
        """Do what the orders say; how that ended for good.

        Raises EarlyEnd, and SourceFailed where another machine may fare better.
        """
        if ending := self._folder.done() or self.fruitless():
            return ending
        facts = {"type": self._metadata.instance_type(), "zone": self._metadata.zone()}
        self.tell("starts", version=self._orders.version, **facts)
        stages: dict[str, Callable[[], None]] = {
            "checks": self._check, "lease": self._take_lease, "pull": self._pull,
            "data": self._make_root, "verify": self._verify, "train": self._train,
        }  # fmt: skip
        try:
            for name, stage in stages.items():
                self.tell("stage", stage=name)
                stage()
        except Failure as failure:
            return _ending(failure.code, str(failure))
        except EarlyEnd:
            if self.watch.cause not in (Cause.STOP, Cause.DEADLINE):
                raise
            return _ending(TERMINATED_EXIT_CODE, self.watch.cause)
        return _ending(0, "the training is done")

    def fruitless(self) -> Ending | None:
        """The end for good, if as many machines as may have started and come to nothing."""
        starts = 0
        for event in self._folder.events():
            if event.kind == "starts":
                starts += 1
            elif event.kind in ("progress", "interrupted"):
                starts = 0
        if starts < self._orders.starts:
            return None
        return _ending(1, f"{starts} machines started and none came further: see log.txt")

    def end(self, ending: Ending) -> None:
        """Write down how it ended for good, and keep the machine for as long as the orders say."""
        if self._folder.done() is None:
            self._folder.write_done(ending)
            self.tell("ended", code=ending.code, reason=ending.reason)
            self.watch.give_up_lease()
            self.watch.push_log()
            until_s = time.monotonic() + 60 * self._orders.keep_minutes
            while time.monotonic() < until_s and not self._folder.is_stop_requested():
                time.sleep(self.watch.look_s)

    def leave(self, kind: str, reason: str) -> None:
        """Leave the run to the next machine; EC2 comes for this one if it has said so."""

        def say() -> None:
            self.tell(kind, reason=reason)

        for farewell in (say, self.watch.give_up_lease, self.watch.push_log):
            with suppress(SourceFailed):
                farewell()
        if self.watch.notice is not None:
            time.sleep(max(0.0, self.watch.notice.at - time.time()) + _TAKEN_BACK_S)

    def tell(self, kind: str, **details: Any) -> None:
        """Say in the log and in the bucket what happens."""
        note(f"{kind} {details}")
        self._folder.add_event(self._instance, kind, **details)

    def _check(self) -> None:
        """Find out before any data come whether such a machine can do the work."""
        try:
            if self._orders.needs_gpu:
                from imnetprep.devices.device import pick_device

                pick_device("cuda")
            require_free(self._root.path, self._orders.needed_bytes, purpose="the dataset")
        except ImnetprepError as error:
            raise Failure(error.exit_code, str(error)) from error

    def _take_lease(self) -> None:
        if not self.watch.take_lease():
            raise EarlyEnd

    def _pull(self) -> None:
        """The run as far as it came on other machines."""
        checkpoint = f"runs/{self._orders.run}/{self._run.last.name}"
        key = (parse_s3_address(self._orders.address) / checkpoint).key
        if any(each.key == key for each in self._folder.bucket.objects(key)):
            self._verb(*self._sync("--pull", "--what", "runs", "--run", self._orders.run))

    def _make_root(self) -> None:
        """The images: of the archives in the bucket, or its shards."""
        if self._orders.source == "shards":
            self._verb(*self._sync("--pull", "--what", "shards,manifest"))
            return
        dataset, files = self._orders.dataset, self._orders.dataset_files
        if files:
            definition = self._root.path / "definition"
            for name in files:
                answer = self._folder.read(f"dataset/{name}")
                if answer is None:
                    raise Failure(1, f"{self._folder.place / 'dataset' / name} is not there")
                path = definition / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(answer[0])
            dataset = str(definition / str(dataset))
        words = ["--dataset", dataset] if dataset else []
        self._verb("organize", "--archives", self._orders.address, *words)

    def _verify(self) -> None:
        self._verb("verify")

    def _train(self) -> None:
        """Train, pushing from time to time, and once more in the end."""
        watch, (verb, *options) = self.watch, self._orders.command
        self._start_position = self._position()
        self._push_at_s = time.monotonic() + self._orders.push_s
        child = self._start(verb, *options, "--run", self._orders.run, "--resume")
        code = watch.attend(child, between=self._push_in_time)
        is_pushed = self._push_in_the_end()
        if watch.cause is not None:
            raise EarlyEnd
        _require_success(verb, code)
        if not is_pushed:
            raise SourceFailed(
                f"the training is done, and its last push to {self._orders.address} failed",
                hint="the next machine resumes from the push before it",
            )

    def _push_in_time(self) -> None:
        """Between looks: note a push that is over, and begin one that is due."""
        watch, child = self.watch, self._push
        if child is not None and child.poll() is not None:
            self._note_push(child.returncode)
        is_due = time.monotonic() >= self._push_at_s or watch.is_at_risk
        if is_due and self._push is None and watch.cause is None and self._run.is_begun:
            watch.is_at_risk = False
            self._begin_push()

    def _push_in_the_end(self) -> bool:
        """Push what the training left; is it in the bucket?"""
        watch, child = self.watch, self._push
        if child is not None:
            self._note_push(watch.attend(child, may_stop=False))
        if watch.cause is Cause.LEASE or not self._run.is_begun:
            return False
        code = watch.attend(self._begin_push(), may_stop=False)
        self._note_push(code, is_last=True)
        return code == 0

    def _begin_push(self) -> Child:
        self._push_at_s = time.monotonic() + self._orders.push_s
        self._push_began_s, self._push_position = time.monotonic(), self._position()
        words = self._sync("--push", "--what", "runs", "--run", self._orders.run, "--quiet")
        self._push = self._start(*words, output=subprocess.DEVNULL)  # each would tell its plan
        return self._push

    def _note_push(self, code: int, *, is_last: bool = False) -> None:
        self._push, self._pushes = None, self._pushes + 1
        if is_last or code or self._pushes == 1:
            seconds = round(time.monotonic() - self._push_began_s, 1)
            self.tell("push", code=code, seconds=seconds, is_last=is_last)
        position = self._push_position
        if code == 0 and position > self._start_position and not self._has_progress:
            self._has_progress = True
            self.tell("progress", epoch=position[0], step=position[1])
        if code == 0 and not self._has_rate:
            self._write_rate()

    def _write_rate(self) -> None:
        """Say beside the launches how fast such a machine trains, once it has done 100 steps."""
        from imnetprep.training.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(self._run.last)
        recipe, epochs = checkpoint.recipe, checkpoint.position.epoch
        lines = epoch_lines(self._run.log_lines(epochs))
        own = lines[self._start_position[0] + (self._start_position[1] > 0) :]
        images = sum(line["train"]["images"] for line in own)
        seconds = sum(real_number(line["seconds"]) for line in own)
        if images >= _RATE_STEPS * recipe.batch_size and seconds:
            name = rate_name(self._metadata.instance_type(), recipe)
            place = parse_s3_address(self._orders.address) / name
            body = json.dumps({"images_per_s": round(images / seconds, 1)}).encode()
            with explained(place):
                self._folder.bucket.call("put_object", Key=place.key, Body=body)
            self._has_rate = True

    def _position(self) -> tuple[int, int]:
        """How far the run is on this machine: epochs that are over, and steps of the next."""
        if not self._run.is_begun:
            return 0, 0
        from imnetprep.training.checkpoint import load_checkpoint

        position = load_checkpoint(self._run.last).position
        return position.epoch, position.step

    def _sync(self, *words: str) -> tuple[str, ...]:
        return ("sync-s3", self._orders.address, *words, "--replace")

    def _verb(self, *words: str) -> None:
        """Run a verb of ours to its end. Raises EarlyEnd, Failure or SourceFailed."""
        code = self.watch.attend(self._start(*words))
        if self.watch.cause is not None:
            raise EarlyEnd
        _require_success(words[0], code)

    def _start(self, *words: str, output: int | None = None) -> Child:
        command = [sys.executable, "-m", "imnetprep", *words, "--root", str(self._root.path)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output)


def _require_success(verb: str, code: int) -> None:
    """Raise Failure, or SourceFailed where it failed for what may be otherwise the next time."""
    if code in (SourceFailed.exit_code, TERMINATED_EXIT_CODE):
        raise SourceFailed(f"{verb} ended with exit code {code}", hint="log.txt says why")
    if code:
        raise Failure(code, f"{verb} ended with exit code {code}: log.txt says why")


def _ending(code: int, reason: str) -> Ending:
    return Ending(code, reason, time.time())


def supervise(folder: LaunchFolder, run: str, place: Path, *, logs: Sequence[Path] = ()) -> int:
    """Do what the orders in `folder` say, below `place`; the exit code.

    What ends for good ends the group too; all else leaves the run to the next machine.
    """
    try:
        orders = folder.orders()
        if orders is None:
            raise WrongBytes(f"{folder.place} has no launch.json", hint="imnetprep launch")
    except WrongBytes as error:
        folder.write_done(_ending(error.exit_code, str(error)))
        return _end_group(run, error.exit_code)
    supervisor = Supervisor(folder, orders, place, logs=logs)
    for number in _SIGNALS:
        signal.signal(number, lambda *_: supervisor.watch.interrupt(Cause.SIGNAL))
    try:
        ending = supervisor.story()
    except EarlyEnd:
        supervisor.leave("interrupted", str(supervisor.watch.cause))
        return TERMINATED_EXIT_CODE
    except Exception as error:
        is_ours = isinstance(error, ImnetprepError)
        note(str(error) if is_ours else traceback.format_exc())
        supervisor.leave("failed", str(error) if is_ours else f"a bug: {quoted(repr(error))}")
        last = supervisor.fruitless()
        if last is None:
            return getattr(error, "exit_code", OUR_BUG_EXIT_CODE)
        ending = last
    supervisor.end(ending)
    return _end_group(run, ending.code)


def _end_group(run: str, code: int) -> int:
    """Let the group of the machine start no other one: AWS ends this one too."""
    Aws().call("autoscaling", "update_auto_scaling_group",
               AutoScalingGroupName=f"{GROUP_PREFIX}{run}", **_TO_NOTHING)  # fmt: skip
    return code


def main(arguments: Sequence[str]) -> int:
    """Supervise (`work`), or do so in a session and wait until that is over (`session`)."""
    kind, address, run, place = arguments
    if kind == "session":
        words = [sys.executable, "-m", "imnetprep.launching.supervisor", "work"]
        session = start_session(run, [*words, *arguments[1:]], progress=Silent())
        return wait_for_end(session).code or 0
    bucket = Bucket(parse_s3_address(address).bucket, Settings())
    logs = [Path(LOG), session_folder(run) / "log"]
    with closing(LaunchFolder(bucket, parse_s3_address(address), run)) as folder:
        return supervise(folder, run, Path(place), logs=logs)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ImnetprepError as error:
        sys.exit(f"Error: {error}\nHint: {error.hint}")
