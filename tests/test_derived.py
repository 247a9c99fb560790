"""Derived columns are not believed: what the engine's own judge writes is accepted, and no column of it can be another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cells import cell
from synthetic_run import make_run

from robustcal.cli import main
from robustcal.records.derived import DERIVED, contradiction
from robustcal.records.store import DamagedShard, Run
from robustcal.sweep.verify import measure


def judged(classes=10, n=40, several=False, scale=100.0, bias=0.0, spread=0.05, seed=0):
    """Columns that the judge makes of random cosines."""
    draw = torch.Generator().manual_seed(seed)
    cosines = 0.2 + spread * torch.randn(n, classes, generator=draw)
    labels = torch.randint(0, classes, (n,), generator=draw)
    target = (torch.rand(n, classes, generator=draw) < 0.2).float()
    target[0] = 0  # no class is right
    found = measure(cosines * scale + bias, target if several else labels, cosines)
    if several:
        found["labels"] = np.empty(n, dtype=object)
        found["labels"][:] = [row.nonzero()[:, 0].numpy() for row in target]
    return found | {"id": np.array([f"set/{row}" for row in range(n)], dtype=object)}


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("given", [
    {}, {"classes": 2}, {"classes": 1500, "n": 6}, {"classes": 1024, "n": 6}, {"scale": 4.6}, {"bias": -10.0}, {"spread": 0.4},
    {"spread": 1e-4}, {"n": 1}, {"scale": 1.0, "spread": 0.6, "seed": 3},
])  # fmt: skip
def test_what_the_judge_writes_is_accepted(given, several):
    assert contradiction(judged(several=several, **given)) == ""


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", [*DERIVED, "label", "labels", "top_logits", "top_classes"])
def test_no_column_can_be_another(name, several):
    records = judged(several=several)
    if name not in records or (several and name == "label"):
        pytest.skip("not a column of these")
    column = records[name].copy()
    if column.dtype == bool:
        column[7] = not column[7]
    elif name == "labels":
        column[7] = np.array([label for label in range(10) if label not in column[7]])
    elif column.dtype.kind == "i":
        column[7] = np.roll(column[7], 1) if column.ndim == 2 else (column[7] + 1) % 10
    else:
        column[7] = column[7] + 0.01 * (1 + np.arange(10)[::-1] if column.ndim == 2 else 1)
    assert "in 1 rows, such as set/7" in contradiction(records | {name: column})


def test_the_reading_of_dirichlet_has_one_scale_for_all_rows():
    records, other = judged(), judged(scale=80.0)
    mixed = {name: np.concatenate([records[name][:30], other[name][30:]]) for name in records}
    assert contradiction(mixed)
    nothing = {name: np.full(40, np.nan) for name in ("dirichlet_confidence", "log_alpha0", "au", "log_eu")}
    assert contradiction(records | nothing) == ""
    nothing["au"] = nothing["au"].copy()
    nothing["au"][3] = 0.1
    assert "gaps" in contradiction(records | nothing)


def test_with_logits_left_out_bounds_hold():
    records = judged(classes=1500, n=6)
    for name, change in (("entropy", 20.0), ("brier", 0.2), ("confidence", 0.01)):
        assert contradiction(records | {name: records[name] + change}).startswith(f"contradicts itself: {name}")


def test_records_without_logits_are_compared_where_they_can_be():
    records = {name: column for name, column in judged().items() if name not in ("top_logits", "top_classes", "rest_logit")}
    assert contradiction(records) == ""
    assert "correct" in contradiction(records | {"correct": ~records["correct"]})


def test_a_forged_shard_is_no_number_of_a_report(tmp_path, capsys):
    """The forgery of twenty lines: `correct` set, the checksum left out, the report none the wiser."""
    run = make_run(tmp_path / "run", models=("clip",), attacks=("clean", "pgd"), datasets=("digits",), radii=("1/255",), n=30)
    forged = next(c for c in run.cells() if c.attack == "pgd")
    rows = {name: list(v) if v.dtype == object else v for name, v in run.read(forged.id).items()}
    run.write_shard(forged.id, 0, rows | {"correct": np.ones(30, bool)})
    assert main(["report", str(run.path)]) == 2
    said = capsys.readouterr().err
    assert "correct does not follow from logits and label" in said and "run the same bench command again" in said
    assert len(said.splitlines()) == 1 and run.missing(forged) == [0]


def test_a_shard_without_a_checksum_is_damaged(tmp_path):
    run = make_run(tmp_path / "run", models=("clip",), attacks=("clean",), datasets=("digits",), n=20)
    (one,) = run.cells()
    path = run.shard_path(one.id, 0, 20)
    path.write_bytes(path.read_bytes().replace(b"robustcal.crc32", b"robustcal.crc33"))
    with pytest.raises(DamagedShard, match="no checksum"):
        run.read(one.id, ("id",))
    assert path.with_suffix(".damaged").is_file()


def test_a_reader_that_mends_nothing_leaves_the_folder_as_it_is(tmp_path):
    run = Run.create(tmp_path / "run", {"command": ""})
    one = cell(n=40)
    run.add_cell(one)
    run.write_shard(one.id, 0, {**judged(), "flags": [""] * 40} | {"correct": np.zeros(40, bool)})
    with pytest.raises(DamagedShard, match="contradicts itself"):
        Run.open(run.path, mends=False).read(one.id)
    assert run.present(one.id) == {0: 40}
