"""A research template: handwritten digits on PyTorch Lightning and Hydra. `train.py` is the place to begin."""
