"""Train a timm classifier on an HDF5 file of `dagaug augment`, with a PyTorch loop of thirty lines.

python examples/train_on_hdf5.py cub.h5 --model resnet18 --epochs 20 --size 64
"""

from __future__ import annotations

import argparse

import numpy as np
import timm
import torch
from torch.utils.data import DataLoader, WeightedRandomSampler

from dagaug import AugmentedDataset
from dagaug.data.square_crops import cut, region_of


class ToTensor:
    """Whole image to a square float tensor in [-1, 1]."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        square = cut(image, region_of(*image.shape[:2]), self.size)
        return torch.from_numpy(square).permute(2, 0, 1).float() / 127.5 - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()

    transform = ToTensor(options.size)
    train = AugmentedDataset(options.file, transform=transform, synthetic_share=0.25)
    test = AugmentedDataset(options.file, split="test", transform=transform)
    sampler = WeightedRandomSampler(train.weights.tolist(), len(train))  # a quarter of the draws are morphs
    model = timm.create_model(options.model, num_classes=len(train.classes))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for epoch in range(options.epochs):
        model.train()
        for images, labels in DataLoader(train, batch_size=64, sampler=sampler, num_workers=2):
            flipped = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images, images.flip(-1))
            loss = torch.nn.functional.cross_entropy(model(flipped), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    model.eval()
    right = 0
    with torch.inference_mode():
        for images, labels in DataLoader(test, batch_size=256):
            right += int((model(images).argmax(1) == labels).sum())
    print(f"accuracy on {len(test)} test images: {right / len(test):.1%}")


if __name__ == "__main__":
    main()
