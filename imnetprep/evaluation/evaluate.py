"""A checkpoint, or weights of another program, scored on the validation split of a root."""

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from imnetprep.catalog.datasets import Layout, Root, Split, Synset
from imnetprep.devices.device import pick_place
from imnetprep.evaluation.guesses import Guesses, GuessRecorder
from imnetprep.evaluation.network import open_checkpoint
from imnetprep.evaluation.real_score import RealScore, real_score
from imnetprep.evaluation.scored_classes import (
    ChosenOutputs,
    only_classes,
    outputs_of,
    tell_of_choice,
)
from imnetprep.messages import ImnetprepError, Progress, count, shell_command
from imnetprep.outside_text import public_address
from imnetprep.pixels.decoders import AUTO
from imnetprep.pixels.transforms import Preprocessing
from imnetprep.remote_shards.place import ShardPlace, listing_of
from imnetprep.samples.bad_images import BadImages
from imnetprep.samples.sample_list import SampleList
from imnetprep.training.failures import said_in_words
from imnetprep.training.meters import Score
from imnetprep.training.validator import Validator


@dataclass(frozen=True)
class Evaluation:
    """A score, and for each of `samples` the class that the network guessed.

    `real` is there for ilsvrc2012 alone. `synsets`: the classes that were compared, of `outputs`
    that the network has.
    """

    network: str
    dataset: str
    score: Score
    real: RealScore | None
    samples: SampleList
    guesses: Guesses
    synsets: tuple[Synset, ...]
    outputs: int
    preprocessing: Preprocessing

    def lines(self) -> list[str]:
        """The score for people, and that by the ReaL labels."""
        return [str(self.score), *([str(self.real)] if self.real else [])]

    def calibration(self) -> str:
        """`calibration error 3.21 %`."""
        return f"calibration error {100 * self.guesses.calibration_error():.2f} %"

    def mistakes(self) -> list[Path]:
        """The images that were guessed wrong, those first of which the network was most sure."""
        return [self.samples.path(index) for index in self.guesses.surest_mistakes()]

    def as_json(self) -> dict[str, Any]:
        """The main numbers."""
        return {
            **self.score.as_json(),
            **({"real": self.real.as_json()} if self.real else {}),
            "calibration_error_percent": 100 * self.guesses.calibration_error(),
        }


def evaluate(
    root: Root,
    path: Path,
    *,
    arch: str | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    decode: str = AUTO,
    layout: Layout | None = None,
    shards: ShardPlace | None = None,
    choice: str | None = None,
    most_images: int | None = None,
    bad: BadImages | None = None,
    progress: Progress,
) -> Evaluation:
    """The checkpoint at `path` scored on the validation split under `root`, or at the place of
    `shards`; on what it held out of train where there is none.

    `arch`: the network of weights that another program saved, or the function of the user's own
    that makes the checkpoint's. `choice`: the classes that are scored, as --only-classes has them;
    `most_images`: of those no more than so many are, evenly over all.
    `decode`: the library that decodes, as --decode has it. Images that cannot be read are an error,
    or noted in `bad` and left out. Raises ImnetprepError if the classes are not among those of the
    network.
    """
    place = pick_place(device, workers)
    with listing_of(root, layout=layout, shards=shards, in_turn=False) as listing:
        dataset, synsets = listing.dataset, listing.dataset.synsets
        checkpoint = open_checkpoint(
            path, arch=arch, dataset=dataset, apply_orientation=dataset.orientation_applied
        )
        samples = listing.validation(
            checkpoint.recipe.val_fraction, train_samples=checkpoint.train_samples
        )
    if samples.split is Split.TRAIN:
        place_name = public_address(shards.address) if shards else root.path
        progress.note(
            f"{place_name} has no val split: scored on {count(len(samples), 'image')} of train that"
            f" --val-fraction {checkpoint.recipe.val_fraction:g} holds out"
        )
    if choice is not None:
        samples = only_classes(samples, dataset, choice)
        synsets = tuple(synsets[dataset.label_of_wnid[wnid]] for wnid in samples.wnids)
    if most_images is not None:
        samples = samples.chosen(np.isin(np.arange(len(samples)), samples.spread(most_images)))
    if not len(samples):
        raise ImnetprepError(
            f"no {samples.split} image is of {count(len(samples.wnids), 'class')} to be scored",
            hint=shell_command("imnetprep", "status", "--root", root.path),
        )
    outputs = outputs_of(checkpoint.classes, samples.wnids, checkpoint=path)
    tell_of_choice(checkpoint.classes, outputs, progress)
    samples = replace(samples, apply_orientation=checkpoint.preprocessing.apply_orientation)
    samples = samples.with_decoder(decode, progress)
    batch_size = batch_size or checkpoint.recipe.batch_size
    validator = Validator(
        samples,
        checkpoint.preprocessing,
        place=place,
        batch_size=batch_size,
        amp=checkpoint.recipe.amp,
        bad=bad,
    )
    recorder = GuessRecorder()
    smaller = f"--batch-size {batch_size // 2}" if batch_size > 1 else "--device cpu"
    with closing(validator), said_in_words(smaller=smaller):
        network = checkpoint.network(place.device)
        if outputs is not None:
            network = ChosenOutputs(network, outputs)
        score = validator.score(network, progress, title="evaluate", on_logits=recorder.add)
    order = np.arange(len(samples)) if samples.order is None else samples.order
    order = order[~np.isin(order, list(validator.unread))]
    guesses = recorder.guesses().sorted_by(order)
    samples = samples.chosen(np.isin(np.arange(len(samples)), order))
    return Evaluation(
        network=checkpoint.recipe.arch,
        dataset=dataset.name,
        score=score,
        real=real_score(samples, guesses.guesses),
        samples=samples,
        guesses=guesses,
        synsets=synsets,
        outputs=len(checkpoint.classes.wnids),
        preprocessing=checkpoint.preprocessing,
    )
