"""What all test-time defences share: a CLIP model behind something that acts on every image before, or as, it is classified."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..clip import weights
from ..clip.classifier import DEFAULT_TEMPLATES, ClipClassifier, ClipModel
from ..noise import Noise
from ..types import Templates, UserError
from . import source

Settings = Mapping[str, Any]


def identity(name: str, model: str, settings: Settings, reference: str | None = None) -> str:
    """Identity of the model behind a defence, of a second model it looks at, and of every setting."""
    other = source.spec_identity(reference) if reference else None
    return weights.digest(name, source.spec_identity(model), other, sorted(settings.items()))


def clip_model(spec: str, name: str, role: str = "model") -> ClipModel:
    """The CLIP model of a spec, for the defence of this name.

    Raises:
        UserError: it is something else, or has a defence of its own.
    """
    found = source.load_base(spec)
    if not isinstance(found, ClipModel):
        what = getattr(found, "name", type(found).__name__)
        raise UserError(f"{name} cannot have '{what}' as its {role}: it needs a CLIP model, and nothing around it")
    return found


class DefendedModel:
    """A CLIP model behind a test-time defence.

    Args:
        name, title: of the defence, in identities and for people.
        make: a classifier of the model, undefended -> the same defended.
        reference: a second model that the defence looks at, if any.
    """

    def __init__(
        self, name: str, title: str, model: ClipModel, settings: Settings, make: Callable[[ClipClassifier], Defended],
        reference: ClipModel | None = None,
    ):  # fmt: skip
        self.model, self.settings, self.make, self.reference = model, settings, make, reference
        self.clip, self.scores, self.name = model.clip, model.scores, f"{model.name} with {title}"
        other = reference.fingerprint if reference else None
        self.fingerprint = weights.digest(name, model.fingerprint, other, sorted(settings.items()))

    def classifier(self, classnames: Sequence[str], templates: Templates = DEFAULT_TEMPLATES) -> Defended:
        """A zero-shot classifier for these classes, defended."""
        defended = self.make(self.model.classifier(classnames, templates))
        defended.fingerprint = self.fingerprint
        return defended.eval()


class Defended(nn.Module):
    """Images (N, 3, H, W) in [0, 1] -> logits (N, C) of a defended classifier; a defence says what `cosines` are.

    Random numbers come from streams keyed by (seed, the image's own bytes, draw), so that a sample's result depends on no
    batch, order or process, and an image judged twice is judged the same. Draw 0 is the deployed one. An attack that calls
    the classifier plainly meets draw 0 of every image it tries, as one who knows the seed would; an attack that averages over
    the randomness (EOT) asks for draws 1, 2, ... inside ``with classifier.drawing(k):`` and never sees the deployed one.

    Attributes:
        deployed: the classifier behind the defence.
        randomised: whether equal images may be classified differently under other draws.
    """

    def __init__(self, deployed: ClipClassifier, seed: int = 0, randomised: bool = True):
        super().__init__()
        self.deployed: ClipClassifier = deployed
        self.seed, self.draw, self.randomised = seed, 0, randomised
        self.classnames, self.num_classes = deployed.classnames, deployed.num_classes
        self.scores, self.alike, self.fingerprint = deployed.scores, deployed.alike, deployed.fingerprint

    @property
    def defence(self) -> tuple[str, ...]:
        """What a run remembers of the defence: "randomised", or "adapting" to each image without chance."""
        return ("randomised" if self.randomised else "adapting",)

    @property
    def scale(self) -> Tensor:
        return self.deployed.scale

    @property
    def bias(self) -> Tensor:
        return self.deployed.bias

    @property
    def head(self) -> Tensor:
        return self.deployed.head

    def cosines(self, images: Tensor) -> Tensor:
        """Cosine similarities with each class, defended: (N, C)."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        return self.cosines(images) * self.scale + self.bias

    @contextmanager
    def drawing(self, draw: int) -> Iterator[None]:
        """Use the independent randomness number `draw` inside; 0 is what is deployed."""
        before, self.draw = self.draw, draw
        try:
            yield
        finally:
            self.draw = before

    def noise(self, images: Tensor) -> Noise:
        """A random stream for each image, the same whenever this image is judged under this draw."""
        return Noise(self.seed, self.keys(images), images.device)

    def keys(self, images: Tensor) -> list[str]:
        """What each image's randomness is keyed by: its own bytes and the draw."""
        rows = images.detach().float().cpu().contiguous().numpy()
        return [f"{hashlib.sha256(row.tobytes()).hexdigest()}/{self.draw}" for row in rows]


def check_settings(name: str, rules: Mapping[str, tuple[bool, str]]) -> None:
    """Raise `UserError` for the first setting that is not as it must be: setting -> (whether it is, what it must be)."""
    for setting, (holds, wanted) in rules.items():
        if not holds:
            raise UserError(f"{name} needs {setting} {wanted}")
