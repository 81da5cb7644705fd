"""An encoded image to its likeliest classes and the network's view of it."""

import math
import threading
import time
from base64 import b64encode
from dataclasses import asdict
from typing import Any, NamedTuple

from imnetprep.images import encode_png, readable_kinds, size_of
from imnetprep.messages import ImnetprepError
from imnetprep.pixels.decoders import decode_pixels
from imnetprep.pixels.transforms import Pixels, network_view
from imnetprep.predict import Guess, Predictor
from imnetprep.serving.refusals import Limits, Refusal

_BEST = 5
_SCAN, _MOST_SCANS = b"\xff\xda", 200  # of a progressive JPEG, which has some ten


class Answer(NamedTuple):
    """The likeliest classes of an image of `size_px`, and what the network saw: a PNG as an address
    (RFC 2397). `seconds`: of decoding and network, without waiting.
    """

    best: tuple[Guess, ...]
    size_px: tuple[int, int]
    view: str
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The fields; `best` has the form of `imnetprep predict --json`."""
        return {**self._asdict(), "best": [asdict(guess) for guess in self.best]}


class Answerer:
    """One network that is asked by many: an image at a time, so that memory holds one decoded."""

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self.predictor = predictor
        self._limits = limits
        self._turn = threading.Lock()

    def answer(self, body: bytes) -> Answer:
        """What `imnetprep predict` says of the image in `body`. Raises Refusal."""
        self._refuse_giants(body)
        preprocessing = self.predictor.preprocessing
        with self._turn:
            start_s = time.perf_counter()
            try:
                plain = decode_pixels(body, apply_orientation=preprocessing.apply_orientation)
            except ValueError as error:
                raise _no_image(error) from error
            except MemoryError as error:
                raise Refusal(
                    503, "memory is too short for the image", hint="send a smaller image"
                ) from error
            crop = self.predictor.crop(plain)
            try:
                (best,) = self.predictor.guesses([crop], best=_BEST)
            except ImnetprepError as error:
                raise Refusal(503, str(error), hint=error.hint) from error
            seconds = time.perf_counter() - start_s
        if not all(math.isfinite(guess.probability) for guess in best):
            raise Refusal(
                500, "the network gives no numbers: its weights are damaged",
                hint="serve another checkpoint",
            )  # fmt: skip
        view = _png(network_view(crop, preprocessing))
        return Answer(best, (plain.shape[1], plain.shape[0]), view, seconds)

    def close(self) -> None:
        """Wait for the image under way, and answer no other: torch does not survive the end of
        the interpreter.
        """
        self._turn.acquire()

    def _refuse_giants(self, body: bytes) -> None:
        """Refuse an image by the size in its header: a few bytes may say billions of pixels."""
        try:
            width, height = size_of(body)
        except ValueError as error:
            raise _no_image(error) from error
        if body.count(_SCAN) > _MOST_SCANS:  # each of which decodes the whole image again
            raise Refusal(413, f"the image has more than {_MOST_SCANS} scans", hint="save it anew")
        if width * height > self._limits.pixels:
            limit = self._limits.pixels // 1_000_000
            raise Refusal(
                413,
                f"the image has {width} × {height} pixels: at most {limit} million are taken",
                hint="make it smaller",
            )


def _no_image(error: ValueError) -> Refusal:
    return Refusal(400, f"the file {error}", hint=f"{readable_kinds()} are read")


def _png(view: Pixels) -> str:
    """The view (S, S, 3) as an address that holds it."""
    png = encode_png(view.transpose(2, 0, 1).tobytes(), len(view))
    return f"data:image/png;base64,{b64encode(png).decode()}"
