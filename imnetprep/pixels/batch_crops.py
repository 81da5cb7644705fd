"""Crops of many images at once, on any device, to the pixel those that `resized` makes one by one.

Images lie end to end in one tensor. Each crop is scaled along x, then along y, as sums of a few
pixels with whole weights. torch's `interpolate` of uint8 on a CPU, antialiased, sums with the same.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from imnetprep.pixels.augmentation import GREY, Box, Outline

_AT_ONCE = 64  # images: what is made on the way takes memory
_WEIGHT_BITS = 15  # of a whole weight, without its sign
_MOST_SHIFT = 22  # the most bits by which torch scales a weight


def _triangle(distances: Tensor) -> Tensor:
    return (1 - distances.abs()).clamp_(min=0)


def _cubic(distances: Tensor) -> Tensor:
    """Keys's cubic filter (1981), a = -0.5."""
    x = distances.abs()
    centre, flank = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, centre, torch.where(x < 2, flank, 0))


# Each filter, and its reach to either side, in pixels of an image that is not made smaller.
FILTERS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "bilinear": (_triangle, 1),
    "bicubic": (_cubic, 2),
}


class Images(NamedTuple):
    """Images end to end: pixels (N, 3) of uint8, and of each its first pixel and its width (I,)."""

    pixels: Tensor
    starts: Tensor
    widths: Tensor


class _Taps(NamedTuple):
    """What is summed along one axis, of B crops to S pixels: T pixels from `first` (B, S) on.

    `weights` (B, S, T) are whole, and their sums 2 to the power `shift` (B,).
    """

    first: Tensor
    weights: Tensor
    shift: Tensor


def batch_crops(
    images: Images,
    numbers: Sequence[int],
    outlines: Sequence[Outline],
    side_px: int,
    interpolation: str,
) -> Tensor:
    """The crops with these outlines, of the images of these numbers: (B, S, S, 3) of uint8.

    S is `side_px`. What an outline's seed changes is left undone.
    """
    device = images.pixels.device
    crops = torch.empty(len(numbers), side_px, side_px, 3, dtype=torch.uint8, device=device)
    for start in range(0, len(numbers), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        boxes = [outline.box for outline in outlines[part]]
        _fill(crops[part], images, numbers[part], boxes, interpolation)
    flags = [outline.is_mirror for outline in outlines]
    mirrors = torch.tensor(flags, dtype=torch.bool, device=device)
    crops = torch.where(mirrors[:, None, None, None], crops.flip(2), crops)
    grey = torch.tensor(GREY, dtype=torch.uint8, device=device)
    for crop, outline in zip(crops, outlines, strict=True):
        if outline.hole:
            x, y, x_end, y_end = outline.hole
            crop[y:y_end, x:x_end] = grey
    return crops


def _fill(
    crops: Tensor, images: Images, numbers: Sequence[int], boxes: Sequence[Box], interpolation: str
) -> None:
    (side_px, _), device = crops.shape[1:3], crops.device
    corners = torch.tensor(boxes)  # on the CPU, which needs the largest size before all else
    widths, heights = (corners[:, 2:] - corners[:, :2]).unbind(1)
    # Lines below a crop are its last one again.
    lines = torch.arange(int(heights.max())).minimum(heights[:, None] - 1) + corners[:, 1, None]
    along_x, along_y = (_taps(lengths, side_px, interpolation) for lengths in (widths, heights))
    along_x, along_y = (_Taps(*(each.to(device) for each in taps)) for taps in (along_x, along_y))
    corners, heights, widths, lines = (
        each.to(device) for each in (corners, heights[:, None] - 1, widths[:, None] - 1, lines)
    )
    places = torch.tensor(numbers, device=device)[:, None]
    starts = images.starts[places] + lines * images.widths[places]
    sums = torch.zeros(*starts.shape, side_px, 3, dtype=torch.int32, device=device)
    for number in range(along_x.weights.shape[2]):
        columns = corners[:, :1] + (along_x.first + number).minimum(widths)
        pixels = images.pixels[starts[:, :, None] + columns[:, None]]
        sums.addcmul_(pixels, along_x.weights[:, None, :, number, None])
    strips = _levels(sums, along_x.shift)
    sums = torch.zeros(*crops.shape, dtype=torch.int32, device=device)
    batch = torch.arange(len(boxes), device=device)[:, None]
    for number in range(along_y.weights.shape[2]):
        rows = strips[batch, (along_y.first + number).minimum(heights)]
        sums.addcmul_(rows, along_y.weights[:, :, number, None, None])
    crops.copy_(_levels(sums, along_y.shift))


def _levels(sums: Tensor, shift: Tensor) -> Tensor:
    """Sums of pixels with whole weights as levels of 0 … 255, rounded."""
    shift = shift[:, None, None, None]
    return sums.add_(1 << (shift - 1)).bitwise_right_shift_(shift).clamp_(0, 255)


def _taps(lengths: Tensor, side_px: int, interpolation: str) -> _Taps:
    """What makes `side_px` pixels of each of these lengths (B,)."""
    weight, reach = FILTERS[interpolation]
    scale = lengths[:, None].double() / side_px
    stretch = scale.clamp(min=1)
    support = reach * stretch
    centres = scale * (torch.arange(side_px) + 0.5)
    first = (centres - support + 0.5).long().clamp_(min=0)
    ends = (centres + support + 0.5).long().minimum(lengths[:, None])
    places = first[..., None] + torch.arange(int((ends - first).max()))
    weights = weight((places - centres[..., None] + 0.5) * (1 / stretch)[..., None])
    weights *= places < ends[..., None]
    weights /= weights.cumsum(2)[..., -1:]  # which adds one after the other
    # As many bits as leave the largest weight of a crop below the limit.
    powers = 2.0 ** torch.arange(1, _MOST_SHIFT + 1)
    largest = (weights.amax((1, 2))[:, None] * powers + 0.5).floor_()
    shift = (largest < 2**_WEIGHT_BITS).sum(1, dtype=torch.int32)
    whole = weights.abs().mul_(2.0 ** shift[:, None, None]).add_(0.5).floor_()
    return _Taps(first, whole.copysign_(weights).int(), shift)
