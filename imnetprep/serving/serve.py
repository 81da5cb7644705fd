"""A checkpoint, or weights of another program, and the root of its classes, served on a page."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imnetprep.catalog.datasets import DEFAULT, Layout, Root, load_dataset
from imnetprep.evaluation.network import open_checkpoint
from imnetprep.messages import Progress
from imnetprep.predict import Predictor
from imnetprep.samples.listing import open_listing
from imnetprep.serving.answers import Answerer
from imnetprep.serving.examples import Examples, find_examples
from imnetprep.serving.refusals import DEFAULT_LIMITS, Limits
from imnetprep.serving.server import Listener, listening


@contextmanager
def served(
    path: Path,
    root: Root,
    *,
    arch: str | None = None,
    layout: Layout | None = None,
    device: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress,
) -> Iterator[Listener]:
    """Listen for pictures, for the network at `path`, with examples of its classes from `root`.

    `arch`: the network of weights that another program saved; their classes are those of the root,
    or of ilsvrc2012 where it holds none. Raises ImnetprepError where one of them is something else.
    """
    if root.manifest.exists() or root.is_tree:
        with open_listing(root, layout=layout) as listing:
            checkpoint = open_checkpoint(
                path,
                arch=arch,
                dataset=listing.dataset,
                apply_orientation=listing.dataset.orientation_applied,
            )
            examples = find_examples(listing, checkpoint.classes.wnids)
    else:
        progress.note(f"{root.path} holds no dataset: the page has no examples of classes")
        dataset = load_dataset(DEFAULT)
        checkpoint = open_checkpoint(path, arch=arch, dataset=dataset, apply_orientation=False)
        examples = Examples()
    answerer = Answerer(Predictor(checkpoint, device=device), limits)
    network = checkpoint.recipe.arch
    with listening(
        answerer, examples, network=network, host=host, port=port, limits=limits, progress=progress
    ) as listener:
        yield listener
