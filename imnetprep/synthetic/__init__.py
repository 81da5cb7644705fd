"""Synthetic datasets: small, drawn or of noise, packed exactly as ImageNet's archives are."""

from imnetprep.synthetic.drawing import draw_dataset
from imnetprep.synthetic.noise import pack_dataset

__all__ = ["draw_dataset", "pack_dataset"]
