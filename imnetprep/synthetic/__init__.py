"""Small datasets made here and packed exactly as ImageNet's archives are packed."""

from imnetprep.synthetic.drawing import draw_dataset
from imnetprep.synthetic.packing import pack_dataset

__all__ = ["draw_dataset", "pack_dataset"]
