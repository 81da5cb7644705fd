"""Images that cannot be read and are skipped: what takes their place, and how they are told."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch

from imnetprep.catalog.datasets import Root, Split
from imnetprep.evaluation.evaluate import evaluate
from imnetprep.loading.batches import Batch
from imnetprep.loading.device_cache import DeviceCache
from imnetprep.loading.loader import Loader
from imnetprep.loading.order import Keys, in_turn, shuffled
from imnetprep.messages import Interruption, Silent, WrongBytes
from imnetprep.pixels.augmentation import Sizes, TrainTransform
from imnetprep.process_group.ranks import ALONE, Ranks
from imnetprep.samples.bad_images import BadImages
from imnetprep.samples.sample_list import SampleList
from imnetprep.samples.substitution import Substitution
from imnetprep.training.checkpoint import Best
from imnetprep.training.meters import Score
from imnetprep.training.plan import plan_training
from imnetprep.training.runs import Run
from imnetprep.training.state import TrainState
from tests.conftest import Run as RunCommand
from tests.drawn import draw_root
from tests.training.stops import SignalAt
from tests.training.test_loading import same, samples_of
from tests.training.test_ranks import PLAIN, refuse_distance, train_as_ranks
from tests.training.test_train import SMALL, numbers, refuse_difference, trained

TRANSFORM = TrainTransform(Sizes(32, 32), 0.2, seed=5)


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def spoil(samples: SampleList, *indices: int) -> list[str]:
    """Make images unreadable, each in another way; the names of their files."""
    for number, index in enumerate(indices):
        path = samples.path(index)
        whole = path.read_bytes()
        path.unlink()
        if number % 4:
            path.write_bytes((whole[: len(whole) // 2], b"", b"not an image")[number % 4 - 1])
    return sorted(samples.name(index) for index in indices)


@pytest.fixture
def spoilt(tmp_path: Path) -> SampleList:
    """Six images of each of three classes: two of the first are bad, three of the last."""
    samples = samples_of(draw_root(tmp_path, train=6, val=2))
    spoil(samples, 0, 5, 12, 13, 14)
    return samples


def loader_of(
    samples: SampleList,
    bad: BadImages,
    *,
    replaces: bool = True,
    workers: int = 0,
    ranks: Ranks = Ranks(),  # noqa: B008 - a frozen value
    cache: DeviceCache | None = None,
) -> Loader:
    return Loader(
        samples,
        TRANSFORM,
        order=shuffled(len(samples), batch_size=9, seed=5, repeats=3)
        if replaces
        else in_turn(len(samples)),
        batch_size=9,
        workers=workers,
        pin_memory=False,
        share=ranks.slice,
        bad=bad,
        replaces_bad=replaces,
        cache=cache,
    )


def test_the_next_of_its_class_takes_the_place_of_a_bad_image(spoilt: SampleList) -> None:
    bad = BadImages(Silent())
    loader = loader_of(spoilt, bad)
    keys = [key for batch in loader._keys for key in batch.numbers]
    batches = list(loader.batches(0))
    crops = [pixels for batch in batches for pixels in batch.pixels]
    labels = [int(label) for batch in batches for label in batch.labels]
    places = {0: 1, 5: 1, 12: 15, 13: 15, 14: 15}
    assert set(places) & {key % 18 for key in keys}
    for key, crop, label in zip(keys, crops, labels, strict=True):
        image = spoilt.pixels(places.get(key % 18, key % 18))
        assert torch.equal(crop, torch.tensor(TRANSFORM(image, epoch=0, index=key)))
        assert label == spoilt.labels[key % 18]


def test_batches_stay_whoever_reads_them_and_from_where(spoilt: SampleList) -> None:
    bad = BadImages(Silent())
    expected = [list(loader_of(spoilt, bad).batches(epoch)) for epoch in (0, 1)]
    bad.tell()
    lines = bad.lines
    named = {line.split(": ")[0] for line in lines}
    assert named and named <= {str(spoilt.path(index)) for index in (0, 5, 12, 13, 14)}
    bad = BadImages(Silent())
    loader = loader_of(spoilt, bad, workers=2)
    assert same(list(loader.batches(0)), expected[0])
    assert same(list(loader.batches(1, first_step=1)), expected[1][1:])
    loader.close()
    bad.tell()
    assert bad.lines and set(bad.lines) <= set(lines)
    bad = BadImages(Silent())
    cache = DeviceCache(spoilt, TRANSFORM, torch.device("cpu"), Silent(), expected_bytes=9999)
    loader = loader_of(spoilt, bad, cache=cache)
    for epoch in (0, 1):
        assert same(list(loader.batches(epoch)), expected[epoch])
    bad.tell()
    assert bad.lines == lines
    shares = [loader_of(spoilt, bad, ranks=Ranks(rank, 2)) for rank in range(2)]
    for first, second, whole in zip(
        *(each.batches(0) for each in shares), expected[0], strict=True
    ):
        pixels = torch.cat([first.pixels, second.pixels])
        assert same([Batch(pixels, torch.cat([first.labels, second.labels]))], [whole])


def test_a_class_of_which_no_image_can_be_read_is_an_error(spoilt: SampleList) -> None:
    spoil(spoilt, 15, 16, 17)
    with pytest.raises(WrongBytes, match=f"no image of class {spoilt.wnids[2]} can be read"):
        list(loader_of(spoilt, BadImages(Silent())).batches(0))
    cache = DeviceCache(spoilt, TRANSFORM, torch.device("cpu"), Silent(), expected_bytes=9999)
    with pytest.raises(WrongBytes, match="0") as refused:
        list(cache.batches([Keys(0, [1])], Substitution(spoilt)))
    assert "--on-bad-image skip" in refused.value.hint


@pytest.mark.parametrize("workers", [0, 2])
def test_each_is_read_or_left_out(spoilt: SampleList, workers: int) -> None:
    loader = loader_of(spoilt, BadImages(Silent()), replaces=False, workers=workers)
    for _ in range(2):
        batches = list(loader.batches(0))
        assert [len(batch.labels) for batch in batches] == [7, 6]
        assert loader.unread == {0, 5, 12, 13, 14}
        loader.require_some(read=13, left_out=5)
    with pytest.raises(WrongBytes, match="none of 18 train images can be read"):
        loader.require_some(read=0, left_out=18)
    loader.close()


def test_each_is_told_once_and_listed(tmp_path: Path) -> None:
    progress, file = Notes(), tmp_path / "bad-images.txt"
    bad = BadImages(progress, tmp_path)
    bad.tell()
    assert not file.exists()
    bad.add([f"val/{number:02}.JPEG: is empty" for number in range(8)])
    bad.add(["val/00.JPEG: is empty", "a\nb\x1b.JPEG: is empty"])
    bad.tell()
    bad.tell()
    assert len(progress.lines) == 9 and "skipped: val/07.JPEG: is empty" in progress.lines
    bad = BadImages(progress, tmp_path)  # a resumed run
    more = [f"val/{number:02}.JPEG: is empty" for number in range(7, 12)]
    bad.add(more[:2])
    bad.tell(lambda body: [body, "\n".join(more).encode()])
    assert progress.lines[9:] == [
        "skipped: val/08.JPEG: is empty", f"skipped: 3 more images: {file} lists them",
    ]  # fmt: skip
    names = ["a\\nb\\x1b.JPEG", *(f"val/{number:02}.JPEG" for number in range(12))]
    assert file.read_text().splitlines() == [f"{name}: is empty" for name in names]


@pytest.fixture
def broken(drawn: Root, tmp_path: Path) -> Root:
    """The drawn root with four bad training images of 60, and two of 21 to validate on."""
    shutil.copy(drawn.manifest, tmp_path)
    for split, indices in ((Split.TRAIN, (3, 4, 19, 59)), (Split.VAL, (0, 20))):
        shutil.copytree(drawn.path / split, tmp_path / split)
        spoil(samples_of(Root(tmp_path), split), *indices)
    return Root(tmp_path)


def listed(root: Root, run: str) -> list[str]:
    """The files that the run lists, each once."""
    lines = (root.run(run) / "bad-images.txt").read_text().splitlines()
    assert all(": " in line for line in lines)
    return [str(Path(line.split(": ")[0]).relative_to(root.path)) for line in lines]


def bad_files(root: Root) -> list[str]:
    return sorted(
        str(samples.path(index).relative_to(root.path))
        for split, indices in ((Split.TRAIN, (3, 4, 19, 59)), (Split.VAL, (0, 20)))
        for samples in [samples_of(root, split)]
        for index in indices
    )


SHORT = PLAIN | {"epochs": 2}


def test_a_training_without_its_bad_images_resumes_to_the_same_numbers(broken: Root) -> None:
    """Also where it met them first without the option, which is no part of the recipe."""
    progress = Notes()
    reports = trained(broken, run="whole", options=SHORT, skip_bad=True, progress=progress)
    assert [report.val.as_json()["left_out"] for report in reports] == [2] * 2
    assert [report.val.images for report in reports] == [19] * 2
    assert [report.train.images for report in reports] == [56] * 2
    assert "(2 more could not be read)" in str(reports[0].val)
    assert listed(broken, "whole") == bad_files(broken)
    assert sum(line.startswith("skipped: ") for line in progress.lines) == 6
    for batches, what in ((2, "epoch"), (1, "validation")):
        stop = SignalAt(signal.SIGTERM, batches=batches, what=what)
        with pytest.raises(Interruption):
            trained(broken, run="part", resume=True, options=SHORT, skip_bad=True, progress=stop)
        with pytest.raises(WrongBytes) as refused:
            trained(broken, run="part", resume=True, options={})
        assert "--on-bad-image skip" in refused.value.hint
    trained(broken, run="part", resume=True, options={}, skip_bad=True, workers=1)
    refuse_difference(Run(broken.run("part")), Run(broken.run("whole")))
    assert listed(broken, "part") == listed(broken, "whole")


def test_several_processes_skip_what_one_does_and_one_of_them_lists_it(broken: Root) -> None:
    trained(broken, run="alone", options=SHORT, skip_bad=True)
    assert train_as_ranks(broken, 2, options=SHORT, skip_bad=True) == [0, 0]
    refuse_distance(Run(broken.run("a")), Run(broken.run("alone")))
    assert listed(broken, "a") == bad_files(broken)
    assert numbers(Run(broken.run("a")))[0]["val"]["left_out"] == 2


def test_a_split_of_which_nothing_can_be_read_has_no_score(broken: Root) -> None:
    trained(broken, options=SHORT | {"epochs": 1}, skip_bad=True)
    options = {"device": "cpu", "workers": 0, "progress": Silent()}
    bad, best = BadImages(Silent()), Run(broken.run("a")).best
    evaluation = evaluate(broken, best, bad=bad, **options)  # type: ignore[arg-type]
    assert evaluation.samples.labels.tolist() == evaluation.guesses.labels.tolist()
    samples = samples_of(broken, Split.VAL)
    assert [evaluation.samples.name(index) for index in range(19)] == [
        samples.name(index) for index in range(1, 20)
    ]
    for index in range(1, 20):
        samples.path(index).write_bytes(b"")
    with pytest.raises(WrongBytes, match="none of 21 val images can be read"):
        evaluate(broken, best, bad=bad, **options)  # type: ignore[arg-type]
    with pytest.raises(WrongBytes, match="none of 21 val images can be read"):
        trained(broken, options=SHORT, run="b", skip_bad=True)


def test_evaluate_counts_and_lists_what_it_leaves_out(broken: Root, here: RunCommand) -> None:
    trained(broken, options=SHORT | {"epochs": 1}, skip_bad=True)
    words = ["evaluate", "--root", broken.path, "--device", "cpu", "--workers", 0]
    done = here(*words)
    assert done.returncode == WrongBytes.exit_code and "--on-bad-image skip" in done.stderr
    report = broken.path / "report"
    done = here(*words, "--on-bad-image", "skip", "--report", report, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["images"], facts["left_out"], len(facts["bad_images"])) == (19, 2, 2)
    assert done.stderr.count("skipped: ") == 2
    _, *mistakes = (report / "mistakes.csv").read_text().splitlines()
    for image, wnid, *_ in (line.split(",") for line in mistakes):
        assert image.startswith(f"{wnid}/{wnid}_")
    assert here(*words, "--on-bad-image", "skip").stdout.endswith("(2 more could not be read)\n")


def test_the_best_epoch_has_the_largest_share_of_what_could_be_read(root: Root) -> None:
    plan = plan_training(root, options=SMALL, device="cpu", workers=0, progress=Silent())
    _, checkpoint = plan.begin(Silent())
    state = TrainState(checkpoint, torch.device("cpu"), steps=7, ranks=ALONE)
    state.next_epoch(Score(1.0, 12, 20, 21), None)
    few = Score(1.0, 6, 7, 7, left_out=14)
    assert state.is_best(few, None) and not state.is_best(Score(1.0, 12, 20, 21), None)
    state.next_epoch(few, None)
    assert state.best == Best(2, 6, 7) and state.scores == (12 / 21, 6 / 7)
