"""Self-supervised video models: MaskFeat pre-training, fine-tuning and evaluation."""

__version__ = "0.1.0"
