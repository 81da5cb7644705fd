"""The four rungs: one image, one batch, a small set, the root; the first that fails is the last."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from imnetprep.catalog.datasets import Layout, Root
from imnetprep.devices.device import pick_place
from imnetprep.ladder.causes import usual_causes
from imnetprep.ladder.first_look import first_look
from imnetprep.ladder.gates import guess_loss, loss_gate, validation_gate
from imnetprep.ladder.outcome import Gate, Outcome, Sign, Verdict
from imnetprep.ladder.small_set import draw_small_set
from imnetprep.ladder.steps import Ground, begin, hindrances, scores, training_scores, validation
from imnetprep.loading.batches import Batch
from imnetprep.messages import ImnetprepError, Progress, Silent, Task, WrongUsage, count
from imnetprep.networks.architectures import refuse_unknown
from imnetprep.pixels.decoders import AUTO
from imnetprep.recipes.plan_recipe import arch_of
from imnetprep.training.data import read_data
from imnetprep.training.failures import said_in_words, smaller_batch
from imnetprep.training.meters import Score
from imnetprep.training.step import Step

RUNGS = ("one image", "one batch", "small set", "the root")
_BY_HEART_STEPS = 2000  # at most, of the first two rungs: a low rate takes its time
_PATIENCE_STEPS = 100  # without a lower loss: then more of them are of no use
_IMAGE_LOSS, _BATCH_LOSS, _SLOW_LOSS = 1e-3, 0.1, 0.05
_BATCH_IMAGES = 32
_LOOKS = 4  # validations of the small set, which ends with the first that is good
_GUESS_SHARE = 0.97  # of the loss of guesses: what a training on the root must be under
_LAST_SHARE = 0.1  # of its steps, whose mean loss is judged


def climb(
    root: Root,
    *,
    options: Mapping[str, Any],
    small: Root | None,
    steps: int,
    layout: Layout | None,
    device: str | None,
    workers: int | None,
    progress: Progress,
) -> Iterator[Outcome]:
    """Climb the ladder by a recipe's `options`; yields each rung, also those not tried.

    `small`: the set of the third rung, which is drawn where there is none. `steps`: of the third
    at most, and of the fourth. Nothing is written under `root`. Raises ImnetprepError and
    WrongUsage as a training would.
    """
    refuse_unknown(arch_of(options) or "resnet18")
    place = pick_place(device, workers)
    with TemporaryDirectory(prefix="imnetprep-ladder-") as name:
        folder = Path(name)
        data = read_data(root, layout=layout).with_decoder(AUTO, progress)
        target = begin(data, options, place, folder=folder, progress=progress)

        def small_ground() -> Ground:
            own = small or Root(folder / "drawn")
            if not small:
                draw_small_set(own.path, progress)
            values = {**options, "val": None, "val_fraction": None, "shuffle_window": None}
            return begin(read_data(own), values, place, folder=folder, progress=Silent())

        if target.recipe.one_batch:
            raise WrongUsage(
                "a training on one batch is what the second rung is", hint="leave out --one-batch"
            )
        if target.classes < 2:
            raise ImnetprepError(
                f"{root.path} has one class: there is nothing to learn", hint="add a second one"
            )
        climber = _Climber(target, small_ground, root, steps, progress)
        recipe = target.recipe
        with said_in_words(smaller=smaller_batch(recipe.batch_size, recipe.image_size)):
            yield from climber.outcomes()


@dataclass(frozen=True)
class _Climber:
    """What the rungs have in common."""

    target: Ground
    small_ground: Callable[[], Ground]
    root: Root
    steps: int
    progress: Progress

    def outcomes(self) -> Iterator[Outcome]:
        rungs = (self._one_image, self._one_batch, self._small_set, self._the_root)
        for number, rung in enumerate(rungs):
            outcome = rung()
            yield outcome
            if outcome.verdict is Verdict.FAILURE:
                yield from map(Outcome, RUNGS[number + 1 :])
                return

    def _one_image(self) -> Outcome:
        target, batch = self.target, self.target.batch(_BATCH_IMAGES)
        off = ["augmentation", "dropout", *hindrances(target.recipe)]
        self.progress.note(f"the first two rungs are without {', '.join(off)}")
        network = target.checkpoint.network(target.place.device)
        if not any(parameter.requires_grad for parameter in network.parameters()):
            gate = Gate(Sign.GRADIENT, "no parameter of the network trains", is_met=False)
            return self._outcome(0, [], [gate])
        step = target.step(steps=_BY_HEART_STEPS, by_heart=True)
        gates = list(first_look(step, batch).gates(guess_loss=math.log(target.classes)))
        if not all(gate.is_met for gate in gates):
            return self._outcome(0, [], gates, step=step)
        # Twice: of a single value, in maps of one pixel, BatchNorm would know no deviation.
        image = Batch(batch.pixels[:1].repeat(2, 1, 1, 1), batch.labels[:1].repeat(2))
        return self._by_heart(0, image, gates, limit=_IMAGE_LOSS)

    def _one_batch(self) -> Outcome:
        batch = self.target.batch(_BATCH_IMAGES)
        return self._by_heart(1, batch, [], limit=_BATCH_LOSS)

    def _by_heart(self, number: int, batch: Batch, gates: list[Gate], *, limit: float) -> Outcome:
        """Learn a batch by heart, as far as it goes."""
        step = self.target.step(steps=_BY_HEART_STEPS, by_heart=True)
        track = list[Score]()
        images = count(len(batch.labels) if number else 1, "image")
        with self._task(number, _BY_HEART_STEPS, f"of {images}, at most") as task:
            for score in scores(step, repeat(batch, _BY_HEART_STEPS), task):
                track.append(score)
                is_learned = score.loss < limit and score.top1 == score.images
                best = min(range(len(track)), key=lambda at: track[at].loss)
                is_stuck = len(track) - best > _PATIENCE_STEPS
                if is_learned or is_stuck or not math.isfinite(score.loss):
                    break
        last = track[-1]
        if len(track) == _BY_HEART_STEPS and last.top1 == last.images:
            limit = max(limit, _SLOW_LOSS)  # a head alone falls slowly, and falls on
        text = f"{last.top1} of {last.images} answers right" if number else "the right answer"
        text = text if number or last.top1 else "a wrong answer"
        gates += [loss_gate(last.loss, limit), Gate(Sign.ANSWERS, text, last.top1 == last.images)]
        return self._outcome(number, track, gates, limit=limit, step=step)

    def _small_set(self) -> Outcome:
        ground, track = self.small_ground(), list[Score]()
        step = ground.step(steps=self.steps, by_heart=False)
        pause = -(-self.steps // _LOOKS)
        gate = None
        with self._task(2, self.steps, f"on {_described(ground)}, at most") as task:
            for score in training_scores(ground, step, steps=self.steps, task=task):
                track.append(score)
                if not math.isfinite(score.loss):
                    break
                if len(track) % pause == 0 or len(track) == self.steps:
                    gate = self._validated(ground, step)
                    if gate.is_met:
                        break
        gates = [gate] if gate else []
        limit = guess_loss(ground.data.train.labels, ground.recipe)
        gates.append(loss_gate(track[-1].loss, math.inf))
        return self._outcome(2, track, gates, limit=limit, step=step)

    def _the_root(self) -> Outcome:
        ground, track = self.target, list[Score]()
        step = ground.step(steps=self.steps, by_heart=False)
        with self._task(3, self.steps, f"on {_described(ground)}") as task:
            for score in training_scores(ground, step, steps=self.steps, task=task):
                track.append(score)
                if not math.isfinite(score.loss):
                    break
        part = track[-math.ceil(_LAST_SHARE * len(track)) :]
        limit = _GUESS_SHARE * guess_loss(ground.data.train.labels, ground.recipe)
        gates = [loss_gate(sum(score.loss for score in part) / len(part), limit)]
        if ground.recipe.val and math.isfinite(track[-1].loss):
            gates.append(self._validated(ground, step))
        return self._outcome(3, track, gates, limit=limit, step=step)

    def _validated(self, ground: Ground, step: Step) -> Gate:
        score = validation(ground, step.state.model, self.progress)
        return validation_gate(score, ground.data.val.labels)

    def _task(self, number: int, steps: int, rest: str) -> AbstractContextManager[Task]:
        self.progress.note(f"{RUNGS[number]}: {count(steps, 'step')} {rest}")
        return self.progress.task(RUNGS[number], total=steps, unit="steps")

    def _outcome(
        self,
        number: int,
        track: Sequence[Score],
        gates: Sequence[Gate],
        *,
        limit: float = math.nan,
        step: Step | None = None,
    ) -> Outcome:
        losses = [score.loss for score in track]
        causes = usual_causes(
            gates,
            losses,
            self.target.recipe,
            root=self.root,
            is_target=RUNGS[number] == RUNGS[-1],
            is_short=len(losses) * self.target.recipe.batch_size < len(self.target.data.train),
        )
        views = step.objective.samples()[: None if number else 1] if step else []
        return Outcome(RUNGS[number], losses, limit, gates, list(causes), views)


def _described(ground: Ground) -> str:
    return f"{count(len(ground.data.train), 'image')} of {ground.classes} classes"
