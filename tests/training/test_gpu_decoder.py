"""--gpu-decode: images decoded in batches where the network computes.

torchcodec decodes lists of files on a CPU as well, there with the pixels of all other decoders: by
that all but nvJPEG itself is tested.
"""

from contextlib import closing
from io import BytesIO
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from imnetprep.catalog.datasets import Root
from imnetprep.loading.gpu_decoder import DecodeBatch, GpuDecoder, nvjpeg
from imnetprep.loading.loader import Loader
from imnetprep.loading.order import shuffled
from imnetprep.messages import Silent, WrongBytes, WrongUsage
from imnetprep.pixels.augmentation import Sizes, TrainTransform
from imnetprep.process_group.ranks import Ranks
from imnetprep.recipes.plan_recipe import plan_recipe
from imnetprep.samples.bad_images import BadImages
from imnetprep.samples.sample_list import SampleList
from imnetprep.training.inputs import refuse_device
from tests.conftest import Run as RunCommand
from tests.drawn import draw_root
from tests.training.test_bad_images import spoil
from tests.training.test_loading import same, samples_of
from tests.training.test_pixels import photographs_in
from tests.training.test_step import needs_gpu

pytestmark = pytest.mark.training

CPU = torch.device("cpu")
TRANSFORM = TrainTransform(Sizes(24, 40, 0, 4), 0.2, seed=5, erase=0.5)


def loader_of(
    samples: SampleList,
    decode: DecodeBatch | None,
    *,
    device: torch.device = CPU,
    workers: int = 0,
    ranks: Ranks = Ranks(),  # noqa: B008 - a frozen value
    bad: BadImages | None = None,
) -> Loader:
    decoder = GpuDecoder(samples, TRANSFORM, device, decode) if decode else None
    return Loader(
        samples,
        TRANSFORM,
        order=shuffled(len(samples), batch_size=8, seed=5, repeats=2),
        batch_size=8,
        workers=workers,
        pin_memory=False,
        share=ranks.slice,
        bad=bad,
        replaces_bad=True,
        gpu_decoder=decoder,
    )


def refusing(decode: DecodeBatch) -> DecodeBatch:
    """As nvJPEG where it refuses a file: the whole call fails. Here every third file is refused."""

    def of(bodies: list[bytes]) -> list[Tensor]:
        if any(len(body) % 3 == 0 for body in bodies):
            raise RuntimeError("nvjpegDecode failed: 4")
        return decode(bodies)

    return of


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [Ranks(), Ranks(1, 2)])
def test_batches_are_those_of_other_decoders(drawn: Root, workers: int, ranks: Ranks) -> None:
    samples = samples_of(drawn)
    plain = loader_of(samples, None, ranks=ranks)
    with closing(loader_of(samples, nvjpeg(CPU), workers=workers, ranks=ranks)) as ours:
        for epoch in (0, 2, 4):
            assert same(list(ours.batches(epoch)), list(plain.batches(epoch)))
        assert same(list(ours.batches(1, first_step=3)), list(plain.batches(1, first_step=3)))


def test_what_is_refused_a_decoder_of_the_cpu_decodes(tmp_path: Path) -> None:
    samples = samples_of(draw_root(tmp_path, train=6, val=2))
    image = Image.open(samples.path(1))
    for index, (mode, kind) in enumerate((("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"))):
        body = BytesIO()
        image.convert(mode).save(body, kind)
        samples.path(index).write_bytes(body.getvalue())
    plain = list(loader_of(samples, None).batches(0))
    for decode in (nvjpeg(CPU), refusing(nvjpeg(CPU))):
        assert same(list(loader_of(samples, decode).batches(0)), plain)


def test_the_next_of_its_class_takes_the_place_of_a_bad_image(tmp_path: Path) -> None:
    samples = samples_of(draw_root(tmp_path, train=6, val=2))
    spoil(samples, 0, 5, 12, 13, 14)
    bad, ours_bad = BadImages(Silent()), BadImages(Silent())
    plain = list(loader_of(samples, None, bad=bad).batches(0))
    ours = loader_of(samples, refusing(nvjpeg(CPU)), bad=ours_bad)
    assert same(list(ours.batches(0)), plain)
    for each in (bad, ours_bad):
        each.tell()
    assert ours_bad.lines == bad.lines != []
    with pytest.raises(WrongBytes):
        list(loader_of(samples, nvjpeg(CPU)).batches(0))


def test_memory_that_is_used_up_is_no_refusal(drawn: Root) -> None:
    def full(bodies: list[bytes]) -> list[Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        next(loader_of(samples_of(drawn), full).batches(0))


def test_what_cannot_be_done_with_it_is_refused(root: Root, here: RunCommand) -> None:
    words = ["--root", root.path, "--arch", "mlp-small", "--image-size", 32, "--gpu-decode"]
    for verb in ("train", "bench"):
        done = here(verb, *words, "--device", "cpu")
        assert done.returncode == 2
        assert "--gpu-decode needs a CUDA GPU, and this training is on cpu" in done.stderr
    done = here("train", *words, "--device", "cpu", "--cache", "ram")
    assert "--gpu-decode and --cache ram exclude each other" in done.stderr
    assert not root.runs.exists()
    for options in ({"augment": "trivial"}, {"interpolation": "lanczos"}):
        recipe = plan_recipe({"gpu_decode": True, **options}, amp_pays=False)
        with pytest.raises(WrongUsage, match="--gpu-decode cannot make --"):
            refuse_device(recipe, torch.device("cuda"), None)


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_decodes_within_a_few_levels(real_data: Path) -> None:
    """Photographs of ImageNet: half of a chroma sample, and another inverse transform."""
    device = torch.device("cuda")
    photographs = photographs_in(real_data / "sample1000" / "ILSVRC2012_img_train.tar")
    bodies = list(islice(photographs, 64))
    decode, other = nvjpeg(device), nvjpeg(CPU)
    for ours, theirs in zip(decode(bodies), other(bodies), strict=True):
        difference = (ours.cpu().int() - theirs.int()).abs().float()
        assert ours.shape == theirs.shape and difference.mean() < 3


@pytest.mark.gpu
@needs_gpu
def test_a_training_decodes_on_the_gpu(root: Root, here: RunCommand) -> None:
    words = ["--root", root.path, "--arch", "mlp-small", "--image-size", 32, "--gpu-decode"]
    done = here("train", *words, "--device", "cuda", "--epochs", 2, "--batch-size", 8)
    assert done.returncode == 0, done.stderr
    assert "decoded there" in done.stderr
