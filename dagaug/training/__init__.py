"""The training of DA-GAN: options, loop, losses, pairs of images, run folder."""
