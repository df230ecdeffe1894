"""DA-GAN's networks, presets, checkpoints and trained models."""
