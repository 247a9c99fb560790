"""Ranks and groups against a count by hand, and protocols that tell numbers apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from cells import cell
from scipy.stats import binomtest
from synthetic_run import records

from robustcal.leaderboard.nouns import Place
from robustcal.leaderboard.protocol import attack_of, data_of, differing, threat_of, truth_of
from robustcal.leaderboard.published import published, put
from robustcal.leaderboard.ranks import standings
from robustcal.report.stats import replicates


def numbers_of(correct, n=200):
    """Numbers of models on the same samples: model -> which of them are right."""
    made = records(n, 10, 0.0, 60, 0)
    found = {}
    for name, right in correct.items():
        made["label"] = np.where(right, made["prediction"], (made["prediction"] + 1) % 10)
        found[name] = replicates({**made, "correct": right}, ["accuracy", "calibration"], 200)
    return found


def shares(*accuracies, n=200):
    return {f"m{at}": np.arange(n) < share * n for at, share in enumerate(accuracies)}


def by_hand(correct, alpha=0.05):
    """Rank ranges by exact McNemar tests and Holm's procedure, written out."""
    tests = []
    for a, b in combinations(correct, 2):
        only_a, only_b = int((correct[a] & ~correct[b]).sum()), int((~correct[a] & correct[b]).sum())
        p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
        tests.append((p, (a, b) if only_a > only_b else (b, a)))
    apart = set()
    for at, (p, pair) in enumerate(sorted(tests)):
        if p * (len(tests) - at) >= alpha:
            break
        apart.add(pair)
    return {m: (1 + sum(w == m for _, w in apart), len(correct) - sum(b == m for b, _ in apart)) for m in correct}, apart


@pytest.mark.parametrize("accuracies", [(0.9, 0.5, 0.1), (0.5, 0.5, 0.5), (0.8, 0.77, 0.6, 0.58, 0.2), (0.55, 0.5), (1.0, 0.97, 0.95, 0.9)])
def test_ranks_are_those_counted_by_hand(accuracies):
    correct = shares(*accuracies)
    expected, apart = by_hand(correct)
    found = standings(numbers_of(correct), "accuracy")
    assert {m: (s.first, s.last) for m, s in found.items()} == expected
    for a, b in combinations(correct, 2):
        together = set(found[a].groups) & set(found[b].groups)
        assert not together or not {(a, b), (b, a)} & apart, "models that share a letter are not apart"


def test_neighbours_that_cannot_be_told_apart_share_a_letter():
    found = standings(numbers_of(shares(0.8, 0.79, 0.3, 0.29)), "accuracy")
    assert [found[f"m{at}"].groups for at in range(4)] == ["a", "a", "b", "b"]
    assert [found[f"m{at}"].rank for at in range(4)] == ["1–2", "1–2", "3–4", "3–4"]


def test_a_chain_has_groups_that_overlap():
    correct = shares(0.9, 0.875, 0.85)  # the ends are apart, neighbours are not
    found = standings(numbers_of(correct), "accuracy")
    assert found["m1"].groups == "ab" and found["m0"].groups == "a" and found["m2"].groups == "b"


def test_calibration_is_ranked_from_below_and_few_samples_make_no_claim():
    few = standings(numbers_of(shares(1.0, 0.0, n=12), n=12), "ece")
    assert {s.rank for s in few.values()} == {"1–2"}
    many = standings(numbers_of(shares(0.8, 0.1)), "ece")
    assert many["m0"].rank == "1" and many["m1"].rank == "2"


def test_one_model_has_no_rank():
    assert standings(numbers_of(shares(0.5)), "accuracy") == {}


# -- protocols -------------------------------------------------------------------------------------------------------
BASE = cell("pgd:steps=10", "2/255")


def told(one):
    return attack_of(one, [one]) | data_of(one)


@pytest.mark.parametrize(
    "change, field",
    [
        (lambda c: cell("pgd:steps=20", "2/255"), "steps"),
        (lambda c: cell("pgd:steps=10", "2/255", attack_version=2), "attack version"),
        (lambda c: cell("pgd:steps=10", "2/255", attack_file="a" * 64), "attack file"),
        (lambda c: cell("pgd:steps=10", "2/255", returns="best"), "return rule"),
        (lambda c: cell("pgd:steps=10", "2/255", goal="targeted"), "goal"),
        (lambda c: cell("pgd:steps=10", "2/255", precision="bf16"), "precision of the search"),
        (lambda c: cell("pgd:steps=10", "2/255", seed=3), "seed"),
        (lambda c: cell("pgd:steps=10", "2/255", surrogate="weights"), "crafted on"),
        (lambda c: cell("pgd:steps=10", "2/255", resolution=224), "resolution"),
        (lambda c: cell("pgd:steps=10", "2/255", dataset="digits:split=train"), "split"),
        (lambda c: cell("pgd:steps=10", "2/255", data="others"), "data"),
        (lambda c: cell("pgd:steps=10", "2/255", templates=("{}",)), "prompts"),
        (lambda c: cell("pgd:steps=10", "2/255", prompts="others"), "prompts"),
        (lambda c: replace(c, dataset_size=999), "images"),
    ],
)  # fmt: skip
def test_whatever_changes_a_number_is_another_protocol(change, field):
    assert differing([told(BASE), told(change(BASE))]) == [field]


def test_another_model_is_the_same_protocol():
    assert told(BASE) == told(cell("pgd:steps=10", "2/255", model="other", weights="others", order="order"))


def test_search_precision_is_no_part_of_a_clean_number():
    assert attack_of(cell("clean", precision="bf16"), []) == attack_of(cell("clean"), []) == {"attack": "none"}


def test_labels_are_hashed_in_their_order():
    one, two = np.array([1, 2, 3]), np.array([1, 3, 2])
    assert truth_of({"label": one}) == truth_of({"label": one.copy()}) != truth_of({"label": two})
    assert truth_of({"labels": [[2, 1]], "label": one}) == truth_of({"labels": [[1, 2]], "label": one})


def test_threat_models_in_words():
    assert threat_of(BASE) == "ℓ∞ 2/255" and threat_of(cell("clean")) == "clean"
    assert threat_of(cell("pgd", "1/2", norm="l2")) == "ℓ2 127.5/255"
    assert threat_of(cell("fog", "0", kind="shift")) == "shifts that no adversary chose"


# -- published numbers -----------------------------------------------------------------------------------------------
PUBLISHED = {
    "attack": "pgd:steps=100:step=0.00392156862745098:loss=ce:norm=linf:restarts=1:momentum=0.0:start=uniform:return=last", "eps": "1/255",
    "dataset": "cifar10:split=test:preprocess=stretch", "templates": ("This is a photo of a {}",), "resolution": 224, "returns": "last",
    "n": 10_000, "dataset_size": 10_000,
}  # fmt: skip


def joined(**changed):
    """Whether a published number shares a column with a measured one that is like it but for what is changed."""
    meta = cell(**{**PUBLISHED, **changed})
    place = Place({"attack": "pgd"}, meta.kind, meta.attack, metas=[meta])
    tables = {("cifar10", "single", "ℓ∞ 1/255"): {("pgd",): place}}
    one = next(n for n in published("ucat")[1] if n.dataset == "Cifar10" and n.attack.startswith("pgd") and n.radius == 1)
    put(one, tables)
    assert len(tables) == 1 and sum(one.key in p.values for p in tables["cifar10", "single", "ℓ∞ 1/255"].values()) == 1
    return one.key in place.values


def test_a_published_number_shares_a_column_where_all_that_is_known_agrees():
    assert joined()


@pytest.mark.parametrize(
    "changed",
    [
        {"n": 1000}, {"resolution": 32}, {"templates": ("{}",)}, {"returns": "best"}, {"dataset": "cifar10:split=train:preprocess=stretch"},
        {"dataset": "cifar10:split=test:preprocess=crop"}, {"attack": PUBLISHED["attack"].replace("100", "10")}, {"dataset_size": 20_000},
        {"classnames": tuple(map(str, range(100)))},
    ],
)  # fmt: skip
def test_a_published_number_of_another_protocol_has_its_own_column(changed):
    assert not joined(**changed)
