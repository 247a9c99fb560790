"""Records to frames: worst cases, merging, determinism."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from synthetic_run import make_run
from synthetic_run import records as invented

from robustcal.records.store import Run
from robustcal.report.evaluate import evaluate
from robustcal.report.frame import CSV_METRICS, cells_frame, samples_frame, write_cells_csv
from robustcal.report.labels import sentence, short_labels
from robustcal.report.report import gather
from robustcal.types import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("frame") / "run", models=("clip", "ucat"), n=60)


@pytest.fixture(scope="module")
def results(run):
    return evaluate([run], resamples=200)


def test_one_row_per_cell_and_every_number_inside_its_bounds(run, results):
    frame = cells_frame(results)
    assert list(frame.columns[:8]) == ["cell", "model", "dataset", "attack", "norm", "eps", "radius", "n"]
    assert list(frame.columns[-4:]) == ["flags", "model_spec", "dataset_spec", "attack_spec"]
    # 2 models x 2 sets x (clean + 2 attacks x 2 radii + a worst case per radius)
    assert len(frame) == 2 * 2 * (1 + 4 + 2)
    for name in CSV_METRICS:
        assert (frame[f"{name}_lo"] <= frame[f"{name}_hi"]).all()
        if name != "ece":  # the interval of ECE is for the true error, which lies below its estimate
            assert ((frame[f"{name}_lo"] <= frame[name] + 1e-9) & (frame[name] <= frame[f"{name}_hi"] + 1e-9)).all()


def test_values_are_means_of_the_records(run, results):
    frame = cells_frame(results).set_index("cell")
    for cell in run.cells():
        records = run.read(cell.id)
        row = frame.loc[cell.id]
        assert row["accuracy"] == pytest.approx(records["correct"].mean())
        assert row["confidence"] == pytest.approx(records["confidence"].mean(), rel=1e-6)
        assert row["nll"] == pytest.approx(-np.log(records["label_probability"].astype(float)).mean(), rel=1e-5)


def test_worst_is_the_per_sample_and_over_the_attacks(run, results):
    for eps in ("1/255", "2/255"):
        cells = [c for c in run.cells() if (c.model, c.dataset, c.eps) == ("clip", "digits", eps)]
        both = np.logical_and.reduce([run.read(c.id)["correct"] for c in cells])
        worst = results.get("clip", "digits", "worst", eps)
        assert worst.numbers.values["accuracy"] == pytest.approx(both.mean())
        assert sorted(worst.meta.members) == sorted(c.id for c in cells)


@pytest.fixture
def underflowing(tmp_path):
    """A run of an overconfident model: under two attacks the probability of some labels is 0 in float32."""
    run = make_run(tmp_path / "run", models=("clip",), datasets=("digits",), radii=("1/255",), n=60)
    for cell, pull in zip(run.cells(), (0.0, 1.0, 1.5)):
        run.write_shard(cell.id, 0, invented(60, 10, pull, 900, 1))
    return run


def test_the_likelihood_does_not_depend_on_which_metrics_read_the_logits(underflowing):
    run = underflowing
    _, *attacked = [run.read(cell.id) for cell in run.cells()]
    assert all(0 < (records["label_probability"] == 0).sum() < 60 for records in attacked)
    alone, beside = (evaluate([run], metrics, resamples=20) for metrics in (["scores"], ["scores", "classwise"]))
    assert [cell.kind for cell in alone.cells] == ["clean", "white-box", "white-box", "worst"]
    for one, other in zip(alone.cells, beside.cells):
        assert one.interval("nll") == pytest.approx(other.interval("nll"), rel=1e-5)
    for cell, records in zip(alone.cells[1:], attacked):
        logits = np.zeros((60, 10))
        np.put_along_axis(logits, records["top_classes"], records["top_logits"].astype(float), axis=1)
        loss = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(60), records["label"]]
        assert loss.max() > 100 and cell.interval("nll").value == pytest.approx(loss.mean(), rel=1e-5)


def test_logits_are_read_where_a_probability_has_underflowed_and_nowhere_else(run, underflowing, monkeypatch):
    lost = sum((underflowing.read(cell.id)["label_probability"] < 1e-38).any() for cell in underflowing.cells())
    read, whole = [], Run.read
    monkeypatch.setattr(Run, "read", lambda *a: read.append(a[-1]) or whole(*a))
    evaluate([run], resamples=5)
    assert read and not any("top_logits" in columns for columns in read)
    evaluate([underflowing], resamples=5)
    assert sum("top_logits" in columns for columns in read) == lost > 1


def test_a_metric_cannot_change_what_the_worst_case_is_made_of(run, results):
    def inverted(records):
        return np.logical_not(records["correct"], out=records["correct"]).mean()

    with pytest.raises(UserError, match="metric 'inverted' failed: ValueError: output array is read-only"):
        evaluate([run], [inverted], resamples=5)


def test_worst_needs_two_attacks_and_leaves_controls_out(tmp_path):
    run = make_run(tmp_path / "run", models=("clip",), attacks=("clean", "noise", "pgd"), datasets=("digits",), n=20)
    assert "worst" not in set(cells_frame([run])["attack"])


def test_confidence_attacks_do_not_count_for_the_worst_accuracy(tmp_path):
    run = make_run(
        tmp_path / "run",
        models=("clip",),
        attacks=("clean", "pgd", "cw"),
        datasets=("digits",),
        radii=("1/255",),
        n=20,
    )
    for path in (run.path / "records").glob("*/cell.json"):
        text = path.read_text()
        if '"attack": "cw"' in text:
            path.write_text(text.replace('"goal": "untargeted"', '"goal": "confidence-up"'))
    assert "worst" not in set(cells_frame([run])["attack"])


def test_flags_are_counted_and_accuracy_only_is_said(tmp_path):
    run = make_run(
        tmp_path / "run",
        models=("clip",),
        attacks=("clean", "pgd", "autoattack"),
        datasets=("digits",),
        radii=("2/255",),
        n=30,
    )
    results = evaluate([run], resamples=50)
    flags = {cell.attack: cell.flags for cell in results.cells}
    assert flags["pgd"]["zero-gradients"] == 3 and "accuracy-only" not in flags["pgd"]
    assert flags["autoattack"]["accuracy-only"] is None
    assert flags["worst"]["accuracy-only"] is None
    assert flags["clean"] == {}


def test_the_csv_depends_on_the_records_alone(tmp_path, run):
    copy = tmp_path / "elsewhere" / "other-name"
    shutil.copytree(run.path, copy)
    for path in copy.rglob("*.parquet"):
        os.utime(path, (1, 1))
    moved = Run.open(copy)
    first, second = write_cells_csv(run).read_bytes(), write_cells_csv(moved).read_bytes()
    assert first == second
    assert str(tmp_path).encode() not in second and b"other-name" not in second


def test_unfinished_cells_are_named_and_empty_ones_left_out(tmp_path):
    run = make_run(
        tmp_path / "run", models=("clip",), attacks=("clean", "pgd"), datasets=("digits",), radii=("1/255",), n=20
    )
    clean, attacked = run.cells()
    records = run.read(attacked.id)
    run.shard_path(attacked.id, 0, 20).unlink()
    run.write_shard(attacked.id, 0, {k: list(v[:9]) if v.dtype == object else v[:9] for k, v in records.items()})
    results = evaluate([run], resamples=20)
    assert [(cell.attack, cell.n) for cell in results.cells] == [("clean", 9), ("pgd", 9)]
    assert "9 of 20" in results.notes[0] and "pgd" in results.notes[0] and "9 they have in common" in results.notes[1]
    run.shard_path(attacked.id, 0, 9).unlink()
    assert [cell.attack for cell in evaluate([run], resamples=20).cells] == ["clean"]


def test_samples_frame_has_one_row_per_sample_and_no_logits(run):
    frame = samples_frame([run])
    assert len(frame) == 60 * len(run.cells())
    assert {"model", "dataset", "attack", "eps", "id", "correct", "confidence"} <= set(frame.columns)
    assert "top_logits" not in frame.columns


def test_runs_with_other_cells_are_joined(tmp_path):
    one = make_run(tmp_path / "one", models=("clip",), datasets=("digits",), n=20)
    two = make_run(tmp_path / "two", models=("ucat",), datasets=("digits",), n=20)
    results = evaluate([one, two], resamples=20)
    assert results.values("model") == ["clip", "ucat"] and results.notes == []


def test_the_newest_copy_of_a_cell_wins_and_a_conflict_is_named(tmp_path, by_hand):
    one = make_run(tmp_path / "one", models=("clip",), attacks=("clean",), datasets=("digits",), n=20)
    two = Run.open(shutil.copytree(one.path, tmp_path / "two"))
    (cell,) = one.cells()
    records = {k: list(v) if v.dtype == object else v.copy() for k, v in two.read(cell.id).items()}
    assert evaluate([one, two], resamples=20).notes == []  # equal records are no conflict
    records["confidence"] = records["confidence"] * 0 + 0.25
    two.write_shard(cell.id, 0, records)
    os.utime(one.shard_path(cell.id, 0, 20), (100, 100))
    for order in ([one, two], [two, one]):
        results = evaluate(order, resamples=20)
        assert results.cells[0].numbers.values["confidence"] == pytest.approx(0.25)
        assert len(results.notes) == 1 and "conflict" in results.notes[0] and "'one'" in results.notes[0]


def test_one_name_for_two_models_is_told_apart(tmp_path):
    one = make_run(tmp_path / "one", models=("ucat",), attacks=("clean",), datasets=("digits",), n=20, weights=1)
    two = make_run(tmp_path / "two", models=("ucat",), attacks=("clean",), datasets=("digits",), n=20, weights=2)
    results = evaluate([one, two], resamples=20)
    assert results.values("model") == ["ucat #1", "ucat #2"]
    assert any("ucat" in note and "weights" in note for note in results.notes)


def test_one_attack_at_two_precisions_is_told_apart_by_them(tmp_path):
    how = {"models": ("ucat",), "attacks": ("clean", "pgd"), "datasets": ("digits",), "n": 20}
    runs = [make_run(tmp_path / precision, **how, precision=precision) for precision in ("fp32", "fp16")]
    results = evaluate(runs, resamples=20)
    attacks = [results.labels["attack"][name] for name in results.values("attack")]
    assert {"pgd #fp32", "pgd #fp16"} <= set(attacks) and not {"pgd", "pgd #1"} & set(attacks)


def test_nothing_to_report_on_is_one_line(tmp_path):
    empty = Run.create(tmp_path / "empty", {"versions": {}})
    with pytest.raises(UserError, match="no finished cell"):
        gather([empty.path])
    with pytest.raises(UserError, match="not a run directory"):
        gather([tmp_path / "absent"])


def test_a_cell_is_found_by_the_start_of_its_id(results):
    cell = results.cells[3]
    assert results.find(cell.id[:12]) is cell
    with pytest.raises(UserError, match="no cell"):
        results.find("zzzz")
    with pytest.raises(UserError, match="no cell|several"):
        results.find("")


def test_frames_name_things_by_label_and_keep_the_spec(tmp_path):
    attacks = ("clean", "pgd:steps=20:norm=linf:return=best", "pgd:steps=40:norm=linf:return=best")
    run = make_run(
        tmp_path / "run",
        models=("clip:base=none:activation=none",),
        attacks=attacks,
        datasets=("digits:split=test",),
        n=20,
    )
    results = evaluate([run], resamples=20)
    frame = cells_frame(results)
    assert set(frame["model"]) == {"clip"} and set(frame["dataset"]) == {"digits"}
    assert set(frame["attack"]) == {"clean", "pgd:steps=20", "pgd:steps=40", "worst"}
    assert set(frame["model_spec"]) == {"clip:base=none:activation=none"} and attacks[1] in set(frame["attack_spec"])
    assert results.get("clip", "digits", "pgd:steps=40", "1/255") is results.get(
        run.cells()[0].model, "digits:split=test", attacks[2], "1/255"
    )
    assert set(samples_frame([run])["model"].astype(str)) == {"clip"}


def test_labels_are_short_distinct_and_keep_weights():
    labels = short_labels(
        ["pgd:steps=20:return=best", "pgd:steps=100:return=best", "clean", "clip:ViT-B-32/openai:scale=none"]
    )
    assert labels["pgd:steps=20:return=best"] == "pgd:steps=20"
    assert labels["clean"] == "clean"
    assert labels["clip:ViT-B-32/openai:scale=none"] == "clip:ViT-B-32/openai"
    assert len(set(labels.values())) == 4
    assert "pgd:step=1/255" in short_labels(["pgd:step=0.00392156862745098", "pgd:step=none"]).values()
    again = short_labels(["autoattack:paper", "torchattacks:PGD:steps=5:queries=none #fp16", "torchattacks:SPSA:queries=9"])
    assert list(again.values()) == ["autoattack:paper", "torchattacks:PGD:steps=5 #fp16", "torchattacks:SPSA:queries=9"]
    assert sentence(["a", "b", "c"]) == "a, b and c" and sentence(["a"]) == "a" and sentence([]) == ""
