"""The reference training job: real images in, checkpoints, metrics and weights out, through the whole platform."""
