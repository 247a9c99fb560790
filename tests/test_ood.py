"""Out of distribution: images under another set's class names, telling them from known ones, and the layout that shows it."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from robustcal import api, registry
from robustcal.metrics.separation import MEASURES, SCORES, scores_of, separation
from robustcal.report import layouts
from robustcal.report.ood import pairs_of, told_apart
from robustcal.report.report import gather
from robustcal.sweep.samples import make_source
from robustcal.sweep.verify import measure
from robustcal.types import UserError

SPEC = "ood:images=world-letters:classes=world-shapes"


def records(n, classes=5, scale=8.0, seed=0, digits=None):
    """Records of random cosines, as the judge makes them; `digits` rounds the cosines, so that scores tie."""
    rng = np.random.default_rng(seed)
    cosines = rng.normal(0.2, 0.1, (n, classes))
    cosines = torch.tensor(cosines if digits is None else cosines.round(digits))
    columns = measure(cosines * scale, torch.zeros(n, dtype=torch.long), cosines)
    return {"id": np.array([f"{seed}/{i}" for i in range(n)]), **columns}


def test_the_scores_follow_their_definitions():
    found = records(50, scale=20.0)
    logits = np.zeros((50, 5))
    np.put_along_axis(logits, np.asarray(found["top_classes"], int), np.asarray(found["top_logits"], float), 1)
    scores = scores_of(found)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    q = np.exp(logits / 20 / 0.07) / np.exp(logits / 20 / 0.07).sum(1, keepdims=True)
    expected = {
        "msp": p.max(1), "entropy": (p * np.log(p)).sum(1), "energy": np.log(np.exp(logits).sum(1)), "max_logit": logits.max(1),
        "mcm": q.max(1), "alpha0": np.log(np.exp((logits / 20 + 1) / 0.07).sum(1)),
    }  # fmt: skip
    assert list(scores) == list(SCORES) == list(expected)
    for name, values in expected.items():
        assert np.allclose(scores[name], values, atol=1e-5), name
    eu = np.asarray(found["log_eu"])
    assert np.array_equal(np.argsort(-eu, kind="stable"), np.argsort(scores["alpha0"], kind="stable"))  # they rank alike


@pytest.mark.parametrize("digits", [None, 1])
@pytest.mark.parametrize("known, unknown", [(40, 60), (3, 100), (100, 3), (1, 1)])
def test_the_measures_are_those_of_scikit_learn(known, unknown, digits):
    """With weights too, as resampling gives them, and where scores tie."""
    one, other = records(known, seed=1, digits=digits), records(unknown, seed=2, digits=digits)
    rule, positive = separation(one, other), np.r_[np.ones(known), np.zeros(unknown)]
    counts = np.random.default_rng(0).integers(0, 3, (4, known + unknown))
    counts[:, 0] = counts[:, -1] = 1  # neither side is empty
    weights = np.vstack([np.ones(known + unknown), counts])
    found = rule.evaluate(weights.astype(np.float32))
    for name in SCORES:
        score = np.r_[scores_of(one)[name], scores_of(other)[name]]
        for row, weight in enumerate(weights):
            fpr, tpr, _ = roc_curve(positive, score, sample_weight=weight, drop_intermediate=False)
            expected = {
                "auroc": roc_auc_score(positive, score, sample_weight=weight),
                "aupr": average_precision_score(positive, score, sample_weight=weight), "fpr95": fpr[np.argmax(tpr >= 0.95)],
            }  # fmt: skip
            for measure_name, value in expected.items():
                assert found[f"{measure_name}_{name}"][row] == pytest.approx(value, abs=1e-6), (measure_name, name)
    assert rule["auroc_msp"] == pytest.approx(found["auroc_msp"][0])


def test_an_empty_side_has_no_value_and_a_score_that_is_not_there_no_name():
    one, none = records(5), {name: column[:0] for name, column in records(5, seed=3).items()}
    assert all(np.isnan(value) for value in separation(one, none).values())
    assert all(np.isnan(value) for value in separation(none, none).values())
    blind = {**one, "log_alpha0": np.full(5, np.nan)}
    assert "auroc_alpha0" not in separation(one, blind) and "auroc_msp" in separation(one, blind)


def test_the_intervals_resample_both_sides_and_hold_their_value():
    found = told_apart(records(60, seed=1), records(80, seed=2, scale=4.0), 200)
    for measure_name in MEASURES:
        value, low, high = found.interval(f"{measure_name}_msp")
        assert 0 <= low <= value <= high <= 1 and high - low > 0.01
    alone = told_apart(records(60, seed=1), records(80, seed=5, scale=4.0), 200)
    assert not np.array_equal(alone.draws["auroc_msp"], found.draws["auroc_msp"])


def test_the_dataset_shows_images_under_other_names():
    letters, shapes = (registry.datasets.build(name) for name in ("world-letters", "world-shapes"))
    source = make_source(registry.datasets.spec(SPEC), 0)
    found = source.dataset
    assert list(found.ids) == list(letters.ids) and list(found.classnames) == list(shapes.classnames)
    assert list(found.templates) == list(shapes.templates) and found.task == "ood"
    batch, plain = found.read([3, 1]), letters.read([3, 1])
    assert torch.equal(batch.images, plain.images) and batch.ids == plain.ids
    assert batch.labels.shape == (2, len(shapes.classnames)) and not batch.labels.any()
    assert sorted(source.order) == list(range(len(letters.ids)))
    others = ("ood:images=world-digits:classes=world-shapes", "ood:images=world-letters:classes=world-colors")
    identities = {make_source(registry.datasets.spec(spec), 0).identity for spec in (SPEC, *others)}
    assert len(identities) == 3


def test_shared_classes_are_refused_or_counted():
    with pytest.raises(UserError, match="not unknown"):
        registry.datasets.build("ood:images=world-shapes:classes=world-shapes")
    mixed = type("Mixed", (), {"name": "mixed", "classnames": ["Circle", "dog"], "ids": ["a"], "resolution": 32})()
    from robustcal.datasets.ood import Unknown

    named = type("Named", (), {"name": "named", "classnames": ["circle", "cat"], "templates": ["{}"]})()
    assert Unknown(mixed, named, "").notes == ["1 classes of the images are among the class names, as 'Circle' is"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("ood")
    attacks = ["clean", "confidence:goal=known:steps=2", "confidence:goal=unknown:steps=2"]
    api.bench(models="tiny-clip", datasets=["world-shapes", SPEC], attacks=attacks, eps="2/255", limit=24, out=out)
    return out


def test_no_class_is_right_in_the_records(run):
    results = gather([run])
    for cell in results.cells:
        if cell.meta.task == "ood":
            rows = cell.run.read(cell.meta.id)
            assert not np.any(rows["correct"]) and not np.any(rows["label_probability"]) and set(rows["label"]) == {-1}
            assert "label-changed" not in cell.flags and cell.meta.n == 24
    assert not any("ood" in label for table in layouts.build("main", results) for row in table.rows for label in row.labels)


def test_the_layout_pairs_known_with_unknown_and_attacks_move_the_measure(run):
    results = gather([run])
    sides = [(k.attack if k.kind != "clean" else "", u.attack if u.kind != "clean" else "") for k, u in pairs_of(results)]
    assert sides[0] == ("", "") and len(sides) == 5 and all("" in side for side in sides)
    tables = {table.name: table for table in layouts.build("ood", results)}
    assert list(tables) == [f"ood-{name}" for name in MEASURES]
    auroc = {(row.labels[2], row.labels[3]): row.entries[0].value for row in tables["ood-auroc"].rows}
    clean = auroc["none", "clean"]
    assert auroc["unknown", "confidence:goal=known"] < clean < auroc["known", "confidence:goal=known"]
    assert auroc["known", "confidence:goal=unknown"] < clean < auroc["unknown", "confidence:goal=unknown"]
    (known, unknown) = next(iter(pairs_of(results)))
    rows = [cell.run.read(cell.meta.id) for cell in (known, unknown)]
    expected = roc_auc_score(np.r_[np.ones(24), np.zeros(24)], np.r_[rows[0]["confidence"], rows[1]["confidence"]])
    assert clean == pytest.approx(expected)


def test_the_premise_says_whether_uncertainty_tells_unknown_images(run):
    results = gather([run], details=False)
    (table,) = [table for table in layouts.build("premise", results) if table.name == "premise-unknown"]
    assert len(table.rows) == 5
    for row, pair in zip(table.rows, pairs_of(results), strict=True):
        rows = [cell.run.read(cell.meta.id) for cell in pair]
        for place, score in ((0, [1 - np.asarray(r["confidence"], float) for r in rows]), (1, [np.asarray(r["entropy"], float) for r in rows])):
            wanted = spearmanr(np.concatenate(score), np.repeat([0, 1], 24)).statistic
            entry = row.entries[place]
            assert entry.value == pytest.approx(wanted, abs=1e-6) and entry.lo < entry.value < entry.hi


def test_a_goal_that_needs_a_label_says_so(tmp_path):
    with pytest.raises(UserError, match="needs one label per image"):
        api.bench(models="tiny-clip", datasets=SPEC, attacks="confidence:goal=gap", eps="2/255", limit=4, out=tmp_path, strict=True)
