"""What is refused of a request, by its HTTP status, and the limits of all requests."""

from dataclasses import dataclass

from imnetprep.messages import ImnetprepError


@dataclass(frozen=True)
class Limits:
    """How much clients may ask for: whatever they send, memory and threads stay bounded.

    `pixels`: of an image, by its header, before it is decoded. `seconds`: until a request has
    arrived, and until its answer has left. `images`: that are received or wait at once.
    `connections`: that are served at once; further ones wait to be accepted.
    """

    body_bytes: int = 50_000_000
    pixels: int = 64_000_000
    seconds: float = 30
    images: int = 8
    connections: int = 64


DEFAULT_LIMITS = Limits()


class Refusal(ImnetprepError):
    """A request is not carried out; `status` is that of its answer (RFC 9110)."""

    def __init__(self, status: int, sentence: str, *, hint: str) -> None:
        super().__init__(sentence, hint=hint)
        self.status = status
