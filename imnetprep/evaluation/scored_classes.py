"""Which classes are scored: those of the root or a choice of them, by outputs of the network."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from imnetprep.catalog.datasets import Dataset
from imnetprep.catalog.subsets import SubsetList, read_list, subset_of
from imnetprep.messages import ImnetprepError, Progress, WrongUsage, count
from imnetprep.samples.sample_list import SampleList
from imnetprep.training.checkpoint import Classes

_OPTION = "--only-classes"


def only_classes(samples: SampleList, dataset: Dataset, choice: str) -> SampleList:
    """The samples of the classes that `choice` names: a list as `imnetprep subset` takes it, or
    wnids with commas. Their labels are ranks among these.

    Raises ImnetprepError on a class that `dataset` lacks.
    """
    subset = subset_of(dataset, _parse_choice(choice, dataset))
    labels = [dataset.label_of_wnid[wnid] for wnid in subset.label_of_wnid]
    part = samples.chosen(np.isin(samples.labels, labels))
    ranks = np.searchsorted(labels, part.labels).astype(np.int32)
    return replace(part, wnids=tuple(subset.label_of_wnid), labels=ranks)


def _parse_choice(text: str, dataset: Dataset) -> SubsetList:
    wnids = re.split(r"\s*,\s*", text.strip(" ,"))
    if any(wnid in dataset.label_of_wnid for wnid in wnids):
        return SubsetList("classes", [(_OPTION, wnid) for wnid in wnids])
    if not any(wnids) or Path(text).is_dir():
        raise WrongUsage(
            f"{_OPTION} {text!r} names no classes",
            hint="wnids with commas, or a list as imnetprep subset takes it",
        )
    return read_list(text)


def outputs_of(classes: Classes, wnids: tuple[str, ...], *, checkpoint: Path) -> list[int] | None:
    """The outputs of a network of `classes` that stand for `wnids`; None: all, in their order.

    Raises ImnetprepError where the network lacks one.
    """
    if classes.wnids == wnids:
        return None
    output_of = {wnid: output for output, wnid in enumerate(classes.wnids)}
    if strangers := [wnid for wnid in wnids if wnid not in output_of]:
        raise ImnetprepError(
            f"{checkpoint} was trained on {classes.dataset}: of {count(len(wnids), 'class')} to be"
            f" scored it lacks {len(strangers):,}, {strangers[0]} first",
            hint=f"--root of classes that it was trained on, or name those by {_OPTION}",
        )
    return [output_of[wnid] for wnid in wnids]


def tell_of_choice(classes: Classes, outputs: list[int] | None, progress: Progress) -> None:
    """Say that a network may guess no other class than those that are scored."""
    if outputs and len(outputs) < len(classes.wnids):
        progress.note(
            f"scored among {count(len(outputs), 'class')}: the other"
            f" {len(classes.wnids) - len(outputs):,} outputs of the network are left out"
        )


class ChosenOutputs(nn.Module):
    """A network of which some outputs are seen, in an order of one's own."""

    def __init__(self, network: nn.Module, outputs: list[int]) -> None:
        super().__init__()
        self._network, self._outputs = network, outputs

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, chosen outputs) of images (B, 3, S, S)."""
        logits: Tensor = self._network(images)
        return logits[:, self._outputs]
