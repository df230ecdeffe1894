"""Training of DA-GAN: options, modes, objectives, losses, training pairs, trainer, run folder."""
