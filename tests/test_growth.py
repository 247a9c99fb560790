"""A sweep that grows: more samples, radii, attacks and models compute only what is new, and equal a fresh run row for row."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import robustcal
from robustcal.cell import SHARD, Cell, from_json, to_json
from robustcal.records.store import Run
from robustcal.report.evaluate import evaluate
from robustcal.sweep.events import ShardDone
from robustcal.sweep.samples import sample_order
from robustcal.sweep.until import parse_targets, samples_needed
from robustcal.types import UserError

COIN = '''
import numpy as np, torch
from robustcal import register
from robustcal.types import Batch

class Coins:
    """Grey images whose brightness tells the class that the model says; the label is right for a known share of them."""
    name, classnames, templates, task, resolution = "coins", ["no", "yes"], ["{}"], "single", 8
    def __init__(self, size, right):
        generator = np.random.default_rng(5)
        self.labels = np.arange(size) % 2
        wrong = np.zeros(size, dtype=bool)
        for label in (0, 1):  # the share holds within each class
            rows = np.flatnonzero(self.labels == label)
            wrong[generator.permutation(rows)[: round((1 - right) * len(rows))]] = True
        self.said = np.where(wrong, 1 - self.labels, self.labels)
        self.ids = [f"coins/{i:06d}" for i in range(size)]
        self.identity = f"coins {size} {right}"
    def __len__(self): return len(self.ids)
    def read(self, indices):
        rows = np.asarray(indices)
        images = torch.from_numpy(self.said[rows]).float().view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
        return Batch(tuple(self.ids[i] for i in rows), images, torch.from_numpy(self.labels[rows]))

@register.dataset
def coins(*, size: int = 4000, right: float = 0.8):
    return Coins(size, right)

@register.model
def believer():
    from robustcal.clip.classifier import LogitClassifier
    class Reader(torch.nn.Module):
        def forward(self, images):
            x = images.mean((1, 2, 3))
            return torch.stack([1 - 2 * x, 2 * x - 1], 1)
    class Model:
        fingerprint = "believer"
        def classifier(self, classnames, templates):
            return LogitClassifier(Reader(), classnames).eval()
    return Model()
'''


@pytest.fixture(scope="module")
def coin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "coin.py"
    path.write_text(COIN)
    return path


def sweep(out, limit, **more):
    """A sweep of the bundled base and the number of shards it computed."""
    done = []
    how = {"models": ["tiny-clip"], "attacks": ["clean", "pgd:steps=2"], "datasets": ["digits"], "eps": "2/255", "workers": 1} | more
    run = robustcal.bench(**how, limit=limit, out=out, device="cpu", progress=done.append)
    return run, [event for event in done if isinstance(event, ShardDone)]


def rows(path):
    """All records of a run by cell id."""
    run = Run.open(path)
    return {cell.id: run.read(cell.id) for cell in run.cells()}


def assert_same_rows(one, other):
    assert one.keys() == other.keys()
    for cell, columns in one.items():
        assert columns.keys() == other[cell].keys()
        for name, values in columns.items():
            assert np.array_equal(values, other[cell][name], equal_nan=values.dtype.kind == "f"), (cell, name)


# -- one order -------------------------------------------------------------------------------------------------------


@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=200), seed=st.integers(0, 5), count=st.integers(1, 200))
@settings(max_examples=200, deadline=None)
def test_every_beginning_of_the_order_is_as_balanced_as_the_classes_allow(labels, seed, count):
    """Oracle: deal one sample of each class that has any left, round after round."""
    order = sample_order(np.array(labels), seed)
    assert sorted(order) == list(range(len(labels)))
    left, dealt, count = {k: labels.count(k) for k in labels}, 0, min(count, len(labels))
    taken = dict.fromkeys(left, 0)
    while dealt < count:  # whole rounds only
        here = [k for k in left if left[k]]
        if dealt + len(here) > count:
            break
        for k in here:
            left[k], taken[k], dealt = left[k] - 1, taken[k] + 1, dealt + 1
    found = np.array(labels)[order[:dealt]].tolist()
    assert {k: found.count(k) for k in taken} == taken
    last = np.array(labels)[order[dealt:count]].tolist()
    assert len(set(last)) == len(last)  # of the round begun, each class at most once


def test_the_order_is_seeded_and_multi_hot_labels_have_one_too():
    labels = np.arange(300) % 7
    assert np.array_equal(sample_order(labels, 1), sample_order(labels, 1))
    assert not np.array_equal(sample_order(labels, 1), sample_order(labels, 2))
    assert sorted(sample_order(np.eye(5)[np.arange(50) % 5], 0)) == list(range(50))


# -- growing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "then", "again"), [(128, 256, 1), (100, 200, 2), (130, 256, 1), (64, 100, 1)])
def test_a_grown_run_is_a_fresh_one_row_for_row_and_computes_only_the_difference(tmp_path, first, then, again):
    sweep(tmp_path / "grown", first)
    grown, done = sweep(tmp_path / "grown", then)
    fresh, all_done = sweep(tmp_path / "fresh", then)
    assert len(done) == 2 * again and len(all_done) == 2 * -(-then // SHARD)
    assert_same_rows(rows(tmp_path / "grown"), rows(tmp_path / "fresh"))
    assert (grown.path / "cells.csv").read_bytes() == (fresh.path / "cells.csv").read_bytes()
    assert set(grown.cells["n"]) == {then}
    folders = [sorted(path.name for path in (run.path / "records").rglob("*.parquet")) for run in (grown, fresh)]
    assert folders[0] == folders[1]  # nothing of the shorter last shard is left


def test_fewer_samples_later_compute_nothing_and_lose_nothing(tmp_path):
    sweep(tmp_path / "run", 200)
    before = rows(tmp_path / "run")
    run, done = sweep(tmp_path / "run", 100)
    assert not done and set(run.cells["n"]) == {200}
    assert_same_rows(before, rows(tmp_path / "run"))


def test_another_radius_attack_or_model_computes_only_itself(tmp_path):
    sweep(tmp_path / "run", 40)
    for more, count in (
        ({"eps": ["2/255", "4/255"]}, 1), ({"attacks": ["clean", "pgd:steps=2", "noise"]}, 1),
        ({"models": ["tiny-clip", "tiny-ucat"]}, 2), ({}, 0),
    ):  # fmt: skip
        _, done = sweep(tmp_path / "run", 40, **more)
        assert len(done) == count, more


def test_cells_are_compared_on_the_samples_they_have_in_common(tmp_path):
    sweep(tmp_path / "run", 60)
    run, _ = sweep(tmp_path / "run", 100, attacks=["clean"])
    assert set(run.cells["n"]) == {60}
    assert any("hold 60 to 100; compared on the 60 they have in common" in note for note in run.results.notes)
    fresh, _ = sweep(tmp_path / "fresh", 60)
    columns = ["model", "dataset", "attack", "eps", "n", "accuracy", "ece", "ece_lo", "ece_hi"]
    assert run.cells[columns].equals(fresh.cells[columns])


def test_two_sizes_of_one_set_are_never_two_data_sets(tmp_path):
    sweep(tmp_path / "small", 60)
    sweep(tmp_path / "large", 100, models=["tiny-ucat"])
    sweep(tmp_path / "whole", None, models=["tiny-tecoa"], attacks=["clean"], datasets=["digits"])
    results = evaluate([Run.open(tmp_path / name) for name in ("small", "large", "whole")])
    assert len(results.values("dataset")) == 1 and {cell.n for cell in results.cells} == {60}
    assert not any("conflict" in note for note in results.notes)


def test_other_seeds_take_other_samples_and_whole_sets_are_one(tmp_path, coin):
    how = {"models": ["believer"], "attacks": ["clean"], "datasets": ["coins:size=200"], "plugins": [coin]}
    for seed in (0, 1):
        sweep(tmp_path / f"part-{seed}", 60, seed=seed, **how)
        sweep(tmp_path / f"whole-{seed}", None, seed=seed, **how)
    parts = evaluate([Run.open(tmp_path / f"part-{seed}") for seed in (0, 1)])
    assert len(parts.values("dataset")) == 2  # two subsets, told apart
    whole = evaluate([Run.open(tmp_path / f"whole-{seed}") for seed in (0, 1)])
    assert len(whole.values("dataset")) == 1 and {cell.n for cell in whole.cells} == {200}


def test_an_old_format_is_refused_with_what_to_do(tmp_path):
    run, _ = sweep(tmp_path / "run", 20, attacks=["clean"])
    header = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(header | {"format": 1}))
    with pytest.raises(UserError, match="record format 1.*use robustcal .* or another --out"):
        sweep(tmp_path / "run", 20, attacks=["clean"])


# -- until -----------------------------------------------------------------------------------------------------------


def wilson_half_width(p, n, z=1.959964):
    return z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))


@pytest.mark.parametrize(("right", "target"), [(0.8, 0.03), (0.5, 0.04)])
def test_until_stops_where_it_should(tmp_path, coin, right, target):
    """The share of right samples is known, so the number of samples at which Wilson's interval is this narrow is too."""
    run, done = sweep(
        tmp_path / "run", None, models=["believer"], attacks=["clean"], datasets=[f"coins:right={right}"], plugins=[coin],
        until=f"accuracy={target}",
    )  # fmt: skip
    (n,) = run.cells["n"]
    (low,), (high,) = run.cells["accuracy_lo"], run.cells["accuracy_hi"]
    enough = next(n for n in range(SHARD, 4000) if wilson_half_width(right, n) <= target)
    assert (high - low) / 2 <= target and n % SHARD == 0
    assert enough * 0.8 <= n <= enough * 1.25 + SHARD and len(done) == n // SHARD


def test_until_takes_the_same_samples_for_all_models_and_says_what_it_lacks(tmp_path, coin):
    run, _ = sweep(
        tmp_path / "run", 50, models=["believer"], attacks=["clean", "noise"], plugins=[coin],
        datasets=["coins:size=300:right=0.5", "coins:size=600:right=1.0"], until="accuracy=0.03",
    )  # fmt: skip
    sizes = dict(zip(run.cells["dataset_spec"].str.extract(r"size=(\d+)")[0], run.cells["n"]))
    assert sizes["300"] == 300 and sizes["600"] < 600
    lacking = [note for note in run.notes if "there are no more samples" in note]
    assert lacking and all("size=300" in note and "not 0.03" in note for note in lacking)


@pytest.mark.parametrize("text", ["", "accuracy", "accuracy=0", "accuracy=1", "accuracy=x", "speed=0.1", "accuracy=nan"])
def test_until_is_refused_in_one_line(text):
    with pytest.raises(UserError, match="--until"):
        parse_targets(text, {"accuracy": None, "ece": None})


def test_the_next_number_of_samples_grows_by_whole_shards_and_not_too_fast():
    assert samples_needed(256, 0.02, 0.02) == 256
    assert samples_needed(256, 0.04, 0.02) == 1024 and samples_needed(256, 0.4, 0.02) == 1024
    assert all(samples_needed(n, w, 0.02) > n for n in (1, 100, 129, 256) for w in (0.0201, 0.03, 1.0))


# -- nouns -----------------------------------------------------------------------------------------------------------


def test_a_cell_comes_back_from_json_as_it_was(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run, _ = sweep(tmp_path / "run", 20)
    for cell in Run.open(run.path).cells():
        assert from_json(Cell, json.loads(json.dumps(to_json(cell)))) == cell
        assert cell.identity.digest() == cell.id
        data = to_json(cell)
        for broken in ({**data, "n": "20"}, {**data, "more": 1}, {k: v for k, v in data.items() if k != "identity"}, [], None):
            with pytest.raises(ValueError):
                from_json(Cell, broken)


# -- what lies in a run besides -----------------------------------------------------------------------------------------


def test_until_looks_at_its_own_cells_whatever_else_the_run_holds(tmp_path, coin):
    """A cell of the same data set with fewer samples, from another sweep, neither stops it nor keeps it going for ever."""
    how = {"models": ["believer"], "datasets": ["coins"], "plugins": [coin]}
    sweep(tmp_path / "run", 20, attacks=["noise"], **how)
    run, _ = sweep(tmp_path / "run", None, attacks=["clean"], until="accuracy=0.03", **how)
    (cell,) = [cell for cell in Run.open(run.path).cells() if cell.kind == "clean"]
    assert wilson_half_width(0.8, cell.n) <= 0.031 and cell.n < 1500


def test_samples_beyond_a_gap_are_no_part_of_what_cells_have_in_common(tmp_path):
    sweep(tmp_path / "run", 300, models=["tiny-clip", "tiny-ucat"], attacks=["clean"])
    run = Run.open(tmp_path / "run")
    first, other = run.cells()
    run.shard_path(first.id, 1).unlink()
    results = evaluate([run])
    assert {cell.n for cell in results.cells} == {128} and not any("unreadable-skipped" in cell.flags for cell in results.cells)
    assert not any("skipped" in note for note in results.notes) and any("compared on the 128" in note for note in results.notes)
    run.shard_path(other.id, 1).unlink()  # the same gap in all cells: what lies beyond is not taken either
    assert {cell.n for cell in evaluate([run]).cells} == {128}


def test_readers_look_again_where_a_shard_grows_under_their_eyes(tmp_path, monkeypatch):
    sweep(tmp_path / "run", 40, attacks=["clean"])
    run = Run.open(tmp_path / "run")
    (cell,) = run.cells()
    listed, looks = run.present, []

    def stale(name):
        looks.append(name)
        return {0: 20} if len(looks) % 2 else listed(name)  # the short shard of before is gone by the time it is opened

    monkeypatch.setattr(run, "present", stale)
    assert len(run.read(cell.id, ("id",))["id"]) == 40
    assert run.skipped(cell.id) == [] and run.discard_damaged(cell.id) == [] and len(run.first(cell, 40)) == 40


def test_two_drivers_lose_no_call_of_each_other(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: Run.create(tmp_path / "run", {"command": str(number)}), range(8)))
    held = json.loads((tmp_path / "run" / "run.json").read_text())["invocations"]
    assert sorted(call["command"] for call in held) == [str(number) for number in range(8)]
