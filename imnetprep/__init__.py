"""ImageNet from where it is to a verified, training-ready tree, and on to a trained ResNet."""

__version__ = "0.1.0"
