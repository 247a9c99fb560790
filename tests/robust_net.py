"""A small convolutional network trained on the digits of scikit-learn, in seconds and from a fixed seed."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from robustcal.clip.classifier import LogitClassifier


@lru_cache
def digits_net(classes=10):
    """(classifier, test images (n, 3, 8, 8) in [0, 1], labels); the first `classes` digits only."""
    from sklearn.datasets import load_digits

    data = load_digits()
    keep = data.target < classes
    images = torch.tensor(data.images[keep], dtype=torch.float32)[:, None].expand(-1, 3, -1, -1).contiguous() / 16
    labels = torch.tensor(data.target[keep])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 16, 64), nn.ReLU(), nn.Linear(64, classes),
        )  # fmt: skip
        order = torch.randperm(len(images))
        held, train = order[: len(order) // 3], order[len(order) // 3 :]
        optimiser = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(4):
            for rows in train[torch.randperm(len(train))].split(64):
                noisy = (images[rows] + 0.15 * torch.randn(images[rows].shape)).clamp(0, 1)
                loss = F.cross_entropy(net(noisy), labels[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return LogitClassifier(net, [str(c) for c in range(classes)]), images[held], labels[held]
