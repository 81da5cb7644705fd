"""What a network that tells pixels apart says of one image, at the size of its file."""

import torch
from torch import Tensor, nn

from imnetprep.masks.pixels import VOID, PixelPair, shrunk, stacked
from imnetprep.networks.mask_networks import STRIDE_PX
from imnetprep.networks.model import heads
from imnetprep.pixels.transforms import Normaliser, Pixels, Preprocessing


def logits_of(
    model: nn.Module, pixels: Pixels, preprocessing: Preprocessing, device: torch.device
) -> Tensor:
    """The logits (1, 1, H, W) of the foreground of an image (H, W, 3), as large as it is.

    The network sees it no larger than `preprocessing` says, with sides that it takes.
    """
    height, width = pixels.shape[:2]
    pair = PixelPair(pixels, torch.full((height, width), VOID, dtype=torch.uint8).numpy())
    small = shrunk(pair, preprocessing.image_size, preprocessing.interpolation)
    rows, columns = small.mask.shape
    batch, _ = stacked([small], multiple_px=STRIDE_PX)
    images = Normaliser(preprocessing, device).normalised(torch.from_numpy(batch))
    logits = heads(model(images))[0].float()[:, :, :rows, :columns]
    if (rows, columns) == (height, width):
        return logits
    return nn.functional.interpolate(
        logits, size=(height, width), mode="bilinear", align_corners=False
    )
