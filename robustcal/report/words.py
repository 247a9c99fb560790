"""What the numbers and flags are called, and what they mean, in one line each: for tables, figures and the page."""

from __future__ import annotations

from dataclasses import dataclass

from ..metrics.validity import FLAGS
from .catalogue import direction_of, unit_of


@dataclass(frozen=True)
class Word:
    """A number's names, unit, better direction and one-line meaning."""

    title: str
    short: str
    unit: str  # "fraction" (printed as percent), "nats", "log10" or ""
    better: str  # "higher", "lower", "zero" or "none"
    about: str

    @property
    def unit_words(self) -> str:
        return {"fraction": "in %", "log10": "decimal logarithm", "": "no unit"}.get(self.unit, self.unit)


METRICS: dict[str, Word] = {
    "accuracy": Word("Accuracy", "Acc", "fraction", "higher", "Share of correct predictions."),
    "ece": Word(
        "Calibration error (ECE)",
        "ECE",
        "fraction",
        "lower",
        "Mean distance between confidence and accuracy over equal-width confidence bins.",
    ),
    "confidence": Word(
        "Confidence", "Conf", "fraction", "none", "Mean largest softmax probability at the model's own logit scale."
    ),
    "nll": Word("Negative log-likelihood", "NLL", "nats", "lower", "Mean negative log probability of the label."),
    "brier": Word(
        "Brier score",
        "Brier",
        "",
        "lower",
        "Mean squared distance between probabilities and the one-hot label, 0 to 2.",
    ),
    "entropy": Word("Entropy", "Entropy", "nats", "none", "Mean entropy of the predicted distribution."),
    "au": Word(
        "Aleatoric uncertainty", "AU", "nats", "none", "Mean expected entropy under the Dirichlet of the cosines."
    ),
    "eu": Word("Epistemic uncertainty", "EU", "", "none", "Mean C / (alpha0 + C) of the Dirichlet of the cosines."),
    "log10_eu": Word(
        "Epistemic uncertainty, log10", "log10 EU", "log10", "none", "Mean decimal logarithm of C / (alpha0 + C)."
    ),
    "ece_debiased": Word(
        "Debiased ECE", "ECE deb", "fraction", "lower", "ECE without the part that sampling noise explains."
    ),
    "overconfidence": Word(
        "Over-confidence",
        "Over",
        "fraction",
        "lower",
        "The part of ECE from bins whose confidence exceeds their accuracy.",
    ),
    "underconfidence": Word(
        "Under-confidence",
        "Under",
        "fraction",
        "lower",
        "The part of ECE from bins whose accuracy exceeds their confidence.",
    ),
    "mean_gap": Word(
        "Mean gap",
        "Gap ≥ ECE",
        "fraction",
        "lower",
        "Mean distance of the confidence from 1 where right, from 0 where wrong: no ECE is larger.",
    ),
    "adaptive_ece": Word("Adaptive ECE", "ECE mass", "fraction", "lower", "ECE over bins of equally many samples."),
    "classwise_ece": Word(
        "Class-wise ECE",
        "ECE class",
        "fraction",
        "lower",
        "Mean over classes of the ECE of each class's probability.",
    ),
    "ks": Word(
        "KS error", "KS", "fraction", "lower", "Largest cumulative difference between confidence and accuracy."
    ),
    "aurc": Word(
        "Area under risk-coverage",
        "AURC",
        "fraction",
        "lower",
        "Mean error over all coverages when the least confident are refused.",
    ),
    "accuracy_at_80": Word(
        "Accuracy at 80 % coverage", "Acc 80", "fraction", "higher", "Accuracy of the 80 % most confident samples."
    ),
    "entropy_shift": Word(
        "Entropy, attacked - clean", "Δ entropy", "nats", "none", "How much the attack moves the entropy."
    ),
    "au_shift": Word(
        "Aleatoric, attacked - clean", "Δ AU", "nats", "none", "How much the attack moves the aleatoric uncertainty."
    ),
    "log10_eu_shift": Word(
        "Epistemic, attacked - clean",
        "Δ log10 EU",
        "log10",
        "none",
        "How much the attack moves the epistemic uncertainty.",
    ),
    "confidence_shift": Word(
        "Confidence, attacked - clean", "Δ conf", "fraction", "none", "How much the attack moves the confidence."
    ),
    "entropy_falls": Word(
        "Entropy falls", "falls", "fraction", "none", "Share of samples whose entropy the attack lowers."
    ),
    "auroc_entropy": Word(
        "AUROC of the entropy",
        "AUROC ent",
        "fraction",
        "higher",
        "Chance that an attacked image looks less certain than a clean one.",
    ),
    "auroc_au": Word("AUROC of AU", "AUROC AU", "fraction", "higher", "The same by aleatoric uncertainty."),
    "auroc_eu": Word("AUROC of EU", "AUROC EU", "fraction", "higher", "The same by epistemic uncertainty."),
    "h": Word(
        "Harmonic mean", "H", "fraction", "higher", "Harmonic mean of the clean and the attacked average accuracy."
    ),
    "corruption_error": Word(
        "Corruption error", "CE", "fraction", "lower", "Error under common corruptions over that of a baseline model."
    ),
    "relative_corruption_error": Word(
        "Relative corruption error", "rel CE", "fraction", "lower", "The same of what the error rises by above the clean one."
    ),
    "map": Word("Mean average precision", "mAP", "fraction", "higher", "Mean over classes of the average precision."),
    "precision_at_3": Word(
        "Precision at 3", "P@3", "fraction", "higher", "Share of the three highest scores that are positives."
    ),
    "recall_at_3": Word(
        "Recall at 3", "R@3", "fraction", "higher", "Share of the positives among the three highest scores."
    ),
    "f1_at_3": Word("F1 at 3", "F1@3", "fraction", "higher", "Harmonic mean of precision and recall at 3."),
    "h_f1": Word("H of F1 at 3", "H(F1@3)", "fraction", "higher", "Harmonic mean of the clean and the attacked F1 at 3."),
    "label_ece": Word(
        "Class-wise ECE of labels", "ECE class", "fraction", "lower", "Mean over classes of the ECE of each label's probability."
    ),
}


#: Numbers that depend on the bins.
BINNED = (
    "ece", "ece_debiased", "overconfidence", "underconfidence", "adaptive_ece", "classwise_ece", "label_ece",
)  # fmt: skip


def word(name: str) -> Word:
    """The words for a number; what its metric declares, where it is not one of `METRICS`."""
    return METRICS.get(name) or Word(name, name, unit_of(name), direction_of(name), "")


def flag_meanings() -> dict[str, str]:
    """Flag -> what it means and what to do next, in one line."""
    return {flag: f"{meaning}; next: {step}" for flag, (meaning, step) in FLAGS.items()}
