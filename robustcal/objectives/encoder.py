"""What an objective sees of the model in training and of the frozen one it started from."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Encoder(Protocol):
    """A classifier that shows its insides; of images (N, 3, H, W) in [0, 1]."""

    head: Tensor  #: text embeddings of the training classes, unit norm: (C, D)
    scale: Tensor  #: logit scale: ()

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, C), float32."""
        ...

    def embed(self, images: Tensor) -> Tensor:
        """Image embedding before normalisation: (N, D)."""
        ...

    def cosines(self, images: Tensor) -> Tensor:
        """Cosine similarity with each class's text embedding: (N, C), float32."""
        ...

    def tokens(self, images: Tensor) -> Tensor:
        """Spatial tokens in the joint space, class token left out: (N, T, D)."""
        ...
