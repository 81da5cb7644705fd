"""What a training is to do, decided before anything is touched: run, data, device, recipe."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from imnetprep import __version__
from imnetprep.catalog.datasets import Layout, Root
from imnetprep.devices.device import Place, described, pick_place
from imnetprep.devices.precision import format_type, half_pays, half_type, measured_half
from imnetprep.loading.caches import DEVICE, CachePlan, Caches, free_bytes
from imnetprep.loading.gpu_decoder import GpuDecoder, nvjpeg
from imnetprep.loading.loader import Loader
from imnetprep.masks.loader import PairLoader
from imnetprep.messages import ImnetprepError, Progress, WrongUsage, count
from imnetprep.networks.architectures import refuse_unknown
from imnetprep.pixels.decoders import AUTO
from imnetprep.pixels.transforms import ValTransform
from imnetprep.process_group.ranks import ALONE, Ranks
from imnetprep.recipes.plan_recipe import (
    arch_of,
    base_values,
    default_arch,
    overrides,
    plan_recipe,
    resumed_recipe,
)
from imnetprep.recipes.recipe import SEGMENT, Recipe
from imnetprep.remote_shards.place import ShardPlace
from imnetprep.reports.record import LogOptions, RunRecord
from imnetprep.samples.bad_images import BadImages
from imnetprep.training.checkpoint import (
    Checkpoint,
    Position,
    copies_of_weights,
    load_checkpoint,
    weights_bytes,
)
from imnetprep.training.classes import refuse_other_classes
from imnetprep.training.data import Data, read_data
from imnetprep.training.foreign_weights import (
    first_weights,
    pixel_options,
    preprocessing_of,
    read_weights,
)
from imnetprep.training.inputs import refuse_device, refuse_window, train_order, train_transform
from imnetprep.training.mask_data import MaskData, read_mask_data, refuse_for_masks
from imnetprep.training.mask_objective import MaskObjective, try_network
from imnetprep.training.mask_validator import MaskValidator
from imnetprep.training.objective import Objective
from imnetprep.training.root_wish import root_wish
from imnetprep.training.runs import Run, pick_run, refuse_pairs, task_of
from imnetprep.training.validator import Validator


@dataclass(frozen=True)
class TrainPlan:
    """A run, what it trains on and where, and the recipe's options as they were typed.

    `restart_schedule`: the schedule begins anew where more epochs are to be trained. `bad`: images
    that cannot be read are noted there, not an error. `cache_kind`: where decoded images
    stay, by --cache; None: nowhere. `caches` are made when the run begins.
    """

    run: Run
    data: Data | MaskData
    place: Place
    options: Mapping[str, Any]
    ranks: Ranks
    restart_schedule: bool = False
    log_options: LogOptions = LogOptions()  # noqa: RUF009 - a frozen value
    bad: BadImages | None = None
    cache_kind: str | None = None
    caches: Caches = Caches()  # noqa: RUF009 - a frozen value

    def begin(self, progress: Progress, ranks: Ranks = ALONE) -> tuple["TrainPlan", Checkpoint]:
        """Where the run begins, or resumes, and the plan with the images that its recipe wants.

        Of what lies on a disk only rank 0 is asked. Raises WrongUsage where the options contradict
        the run.
        """
        is_begun = ranks.is_first and self.run.is_begun
        body = ranks.share(self.run.last.read_bytes() if is_begun else b"")
        with ranks.one_voice():
            checkpoint = self._resumed(body, progress) if body else self._new(progress)
            if not body:
                checkpoint = self._with_amp(checkpoint, ranks, progress)
            data = self.data.of(checkpoint.recipe)
            if isinstance(data, MaskData) and ranks.is_first:
                data.examine(progress)
                try_network(checkpoint, ranks)
            if isinstance(data, Data):
                refuse_window(checkpoint.recipe, data.train)
            images = min(checkpoint.recipe.batch_size, len(data.train))
            if images < ranks.world:
                raise WrongUsage(
                    f"a batch of {count(images, 'image')} is too small for"
                    f" {count(ranks.world, 'process')}: each takes one image at least",
                    hint=f"--devices {images} or fewer, or a larger --batch-size",
                )
            is_synced = checkpoint.recipe.sync_batch_norm and not ranks.is_alone
            if is_synced and self.place.device.type != "cuda":
                raise WrongUsage(
                    "--sync-batch-norm works between CUDA GPUs only",
                    hint="--devices 1; or --no-sync-batch-norm, for another run",
                )
            caches = Caches()
            refuse_device(checkpoint.recipe, self.place.device, self.cache_kind)
            if self.cache_kind and isinstance(data, Data):
                caches = self._cache_plan(self.cache_kind, ranks).caches(
                    (data.train, train_transform(checkpoint.recipe)),
                    (data.val, ValTransform(checkpoint.preprocessing)),
                    progress,
                )
        return replace(self, data=data, caches=caches), checkpoint

    def _cache_plan(self, kind: str, ranks: Ranks) -> CachePlan:
        device = self.place.device
        shares = ranks.shares(free_bytes(kind, device).to_bytes(8))
        least = min(int.from_bytes(share) for share in shares)  # so that all refuse, or none
        return CachePlan(kind, device, ranks.local_world, least)

    def _new(self, progress: Progress) -> Checkpoint:
        text = self.options.get("weights")
        arch = arch_of(self.options) or default_arch(self.options)
        weights = read_weights(text, arch) if text else None
        options = {**pixel_options(weights, self.options)}
        if isinstance(self.data, MaskData):
            # As large as the files are, whatever the weights were trained on.
            options = {**self.options}
            if len(self.data.val) and options.get("val_fraction") is None:
                options["val_fraction"] = 0.0
        elif (supply := self.data.train.supply) and options.get("shuffle_window") is None:
            options["shuffle_window"] = supply.window
        recipe = plan_recipe(options, amp_pays=bool(half_pays(self.place.device)))
        if self.options.get("recipe"):
            progress.note(f"recipe {recipe.recipe}{overrides(self.options)}")
        if self.options.get("lr") is None and recipe.task != SEGMENT:
            size, base = recipe.batch_size, base_values(self.options)
            progress.note(
                f"lr {recipe.lr:g} = {base['lr']:g} × batch size {size} / {base['batch_size']}"
                " (--lr sets another)"
            )
        tensors: dict[str, Tensor] = {}
        if weights:
            tensors, fit = first_weights(recipe, self.data.classes, weights)
            progress.note(f"weights of {weights.source}: {fit}")
        return Checkpoint(
            recipe=recipe,
            classes=self.data.classes,
            preprocessing=preprocessing_of(
                recipe, weights, apply_orientation=self.data.apply_orientation
            ),
            weights=tensors,
            optimizer={},
            position=Position(),
            sums={},
            best=None,
            train_samples=len(self.data.train),
            origin=self.data.origin,
            typed_arch=self.options.get("arch"),
        )

    def _with_amp(self, start: Checkpoint, ranks: Ranks, progress: Progress) -> Checkpoint:
        """`start` with 16 bits where the first rank measures that they pay, if nobody chose."""
        device = self.place.device
        is_chosen = self.options.get("amp") is not None or half_pays(device) is not None
        if is_chosen or start.recipe.task == SEGMENT:
            return start
        pays = ranks.is_first and measured_half(
            start.network(device), size_px=start.recipe.train_size, device=device, progress=progress
        )
        is_on = ranks.share(bytes([pays])) != bytes(1)
        return replace(start, recipe=replace(start.recipe, amp=is_on))

    def require_room(self, network: nn.Module, recipe: Recipe, *, epochs: int = 0) -> None:
        """Raise ImnetprepError where the disk has no room for the checkpoints of `network`.

        So many `epochs` have their weights kept.
        """
        copies = copies_of_weights(recipe)
        self.run.require_room(weights_bytes(network), copies=copies, epochs=epochs)

    def loader(self, recipe: Recipe, ranks: Ranks) -> Loader | PairLoader:
        """The training batches, of which each rank reads its slice."""
        if isinstance(self.data, MaskData):
            return self.data.loader(recipe, self.place, ranks)
        return self.sample_loader(self.data, recipe, ranks)

    def sample_loader(self, data: Data, recipe: Recipe, ranks: Ranks) -> Loader:
        """The training batches of images by class."""
        samples, transform, device = data.train, train_transform(recipe), self.place.device
        decoder = None
        if recipe.gpu_decode:
            decoder = GpuDecoder(samples, transform, device, nvjpeg(device))
        return Loader(
            samples,
            transform,
            order=train_order(recipe, samples.labels, samples.places),
            batch_size=recipe.batch_size,
            workers=self.place.workers,
            pin_memory=device.type == "cuda" and not decoder,
            share=ranks.slice,
            bad=self.bad,
            replaces_bad=True,
            cache=self.caches.train,
            gpu_decoder=decoder,
        )

    def validator(self, checkpoint: Checkpoint, ranks: Ranks) -> Validator | MaskValidator:
        """What scores the network after each epoch."""
        if isinstance(self.data, MaskData):
            return self.data.validator(checkpoint, self.place, ranks)
        return Validator(
            self.data.val,
            checkpoint.preprocessing,
            place=self.place,
            batch_size=checkpoint.recipe.batch_size,
            amp=checkpoint.recipe.amp,
            ranks=ranks,
            bad=self.bad,
            cache=self.caches.val,
        )

    def objective(self, checkpoint: Checkpoint) -> Objective | MaskObjective:
        """The loss that the training descends."""
        if isinstance(self.data, MaskData):
            return self.data.objective(checkpoint, self.place.device)
        return Objective(checkpoint, self.data.train, self.place.device)

    def announce(self, recipe: Recipe, progress: Progress, *, steps: int) -> None:
        """Say what is trained, on what, and what could be said of its images; `steps` an epoch."""
        data = self.data
        val = count(len(data.val), "validation image") if recipe.val else "no validation images"
        progress.note(
            f"{recipe.arch} on {self.place.device}: {len(data.train):,} training and"
            f" {val}, {len(data.classes.wnids)} classes, {steps} steps an epoch,"
            f" {count(self.place.workers, 'worker')}"
            + f", {format_type(half_type(self.place.device))}" * recipe.amp
            + ", compiled" * recipe.compile
            + ", decoded there" * recipe.gpu_decode
            + self.ranks.note
        )
        if isinstance(data, MaskData):
            return
        if data.train.supply:
            progress.note(data.train.supply.described(recipe.shuffle_window))
        for samples in {each.split: each for each in (data.val, data.train)}.values():
            if samples.change:
                progress.note(f"the {samples.split} images are not as published: {samples.change}")
        is_near = data.train.supply is None  # a look at some images would fetch their shards
        if self.ranks.is_first and is_near and (wish := root_wish(recipe, data.train)):
            progress.note(wish)

    def record(self, start: Checkpoint, ranks: Ranks, progress: Progress) -> RunRecord:
        """The record of the run up to `start`, which the first of all ranks writes."""
        lines = self.run.log_lines(start.position.epoch, start.position.step)
        texts = {name: str(value) for name, value in asdict(start.recipe).items()}
        tables = {
            "Dataset": {"dataset": start.classes.dataset, **dict(start.origin.described())},
            "Machine": dict(described(self.place.device, ranks.world)),
            "Recipe": texts,
        }
        return RunRecord(
            self.run.folder,
            lines,
            self.log_options,
            start.classes.names,
            tables,
            progress,
            writes=ranks.is_first,
        )

    def first_state(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """What `recipe.json` keeps: the recipe, the dataset and the machine at the beginning."""
        data = self.data
        splits = (data.train, data.val) if isinstance(data, Data) else ()
        return {
            "recipe": asdict(checkpoint.recipe),
            "dataset": checkpoint.classes.dataset,
            "train_samples": checkpoint.train_samples,
            "changes": {samples.split: samples.change for samples in splits},
            "device": str(self.place.device),
            "decoder": data.decoder,
            "imnetprep": __version__,
            "torch": torch.__version__,
        }

    def _resumed(self, body: bytes, progress: Progress) -> Checkpoint:
        run, train_samples = self.run, len(self.data.train)
        checkpoint = replace(load_checkpoint(run.last, body), typed_arch=self.options.get("arch"))
        at = checkpoint.position
        recipe = resumed_recipe(
            checkpoint.recipe, self.options, epoch=at.epoch, restart_schedule=self.restart_schedule
        )
        refuse_other_classes(checkpoint.classes, self.data.classes, checkpoint=str(run.last))
        if checkpoint.train_samples != train_samples:
            raise ImnetprepError(
                f"{run.last} was trained on {count(checkpoint.train_samples, 'image')}"
                f" and the root has {train_samples:,}",
                hint="begin another run with --run NAME",
            )
        progress.note(f"run {run.folder.name} resumes at epoch {at.epoch + 1}, step {at.step}")
        if checkpoint.processes != self.ranks.world:
            progress.note(
                f"{count(self.ranks.world, 'process')} in place of {checkpoint.processes}:"
                " the batches stay the same, rounding does not"
            )
        return replace(checkpoint, recipe=recipe)


def plan_training(
    root: Root,
    *,
    options: Mapping[str, Any],
    run: str | None = None,
    resume: bool = False,
    restart_schedule: bool = False,
    device: str | None = None,
    workers: int | None = None,
    decode: str = AUTO,
    cache: str | None = None,
    layout: Layout | None = None,
    shards: ShardPlace | None = None,
    ranks: Ranks = ALONE,
    log_options: LogOptions = LogOptions(),  # noqa: B008 - a frozen value
    skip_bad: bool = False,
    progress: Progress,
) -> TrainPlan:
    """Pick the run and read what it trains on; `options`: a recipe's names, None where left out.

    With `resume` a run that exists continues as if it had never stopped; where more epochs are to
    be trained than it has, `restart_schedule` begins its schedule anew. With `shards` the images
    come from there. Raises WrongUsage where the run exists and is not to be resumed.
    """
    place = pick_place(device, workers, local_rank=ranks.local_rank, local_world=ranks.local_world)
    arch = arch_of(options)
    if arch:
        refuse_unknown(arch)
    target = pick_run(
        root, run, arch=arch, resume=resume or not ranks.is_first, default=default_arch(options)
    )
    if resume and not target.is_begun:
        progress.note(f"there is no run {target.folder.name} yet: it begins")
    if task_of(target, options) == SEGMENT:
        refuse_for_masks(
            layout=layout, shards=shards, cache=cache, on_bad_image=skip_bad,
            decode=decode if decode != AUTO else None,
        )  # fmt: skip
        pairs = read_mask_data(root)
        return TrainPlan(target, pairs, place, options, ranks, restart_schedule, log_options)
    if not shards and options.get("task") is None:
        refuse_pairs(root)
    data = read_data(root, layout=layout, shards=shards)
    is_validated = options.get("val") is not False and not options.get("val_fraction")
    if data.lack and is_validated and not target.is_begun:
        raise data.lack  # before weights are downloaded
    if root.is_tree and not shards:
        progress.note(
            f"{root.path} is no root: {count(len(data.classes.wnids), 'class')} by their folders,"
            f" and nothing is verified; the training goes to {target.folder}"
        )
    if cache == DEVICE and workers:
        raise WrongUsage(f"--cache {DEVICE} needs no workers", hint="leave out --workers")
    data = data.with_decoder(decode, progress)
    bad = BadImages(progress, target.folder if ranks.is_first else None) if skip_bad else None
    if cache == DEVICE or (cache and sys.platform != "linux"):
        place = replace(place, workers=0)  # those that are not forked share no memory
    return TrainPlan(target, data, place, options, ranks, restart_schedule, log_options, bad, cache)
