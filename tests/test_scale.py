"""What a run of very many shards costs must grow with their number, and no faster: counted, not timed."""

import importlib.util
import os
from pathlib import Path

import pytest

from robustcal import registry
from robustcal.records.store import Run, claim_name
from robustcal.sweep import samples
from robustcal.sweep.engine import missing_shards
from robustcal.sweep.plan import Request, Sweep, make_plan

FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "scale_simulation.py"


@pytest.fixture(scope="module")
def simulation():
    """The benchmark as a module; what it registers is forgotten afterwards."""
    definition = importlib.util.spec_from_file_location("scale_simulation", FILE)
    module = importlib.util.module_from_spec(definition)
    definition.loader.exec_module(module)
    yield module
    registry.datasets.plugins.pop("invented", None)
    registry.models.plugins.pop("nothing", None)


def plan_of(simulation, models):
    names = [f"nothing:number={i}" for i in range(models)]
    return make_plan(Request((Sweep.of(names, simulation.ATTACKS, "invented:number=0", "1/255"),)))


def counting(monkeypatch, owner, name):
    """How often a function is called from now on."""
    calls, real = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given, **more: calls.append(given) or real(*given, **more))
    return calls


def test_the_simulation_runs_every_phase_and_finds_what_it_wrote(simulation, tmp_path, monkeypatch):
    for module in simulation.SIZED:
        monkeypatch.setattr(module, "SHARD", 4)
    found = simulation.measure(1000, tmp_path / "run", read=True, frame=True)  # checks its own counts
    assert found["cells"] == 6 and found["shards"] == 6 * 168 and found["rows"] == 4
    assert {f"{phase}_s" for phase in ("plan", "add", "look_empty", "look_full", "resume", "read", "frame")} <= set(found)
    assert not (tmp_path / "run").exists()


def test_a_plan_hashes_each_data_set_once_however_many_cells_use_it(simulation, monkeypatch):
    hashed = counting(monkeypatch, samples.hashlib, "sha256")
    counts = []
    for models in (1, 4):
        hashed.clear()
        plan = plan_of(simulation, models)
        counts.append(len([given for given in hashed if given and len(given[0]) > 10_000]))
    assert len(plan.cells) == 24 and counts == [1, 1]


def test_looking_for_what_is_missing_opens_each_cell_once_and_no_shard(simulation, tmp_path, monkeypatch):
    for models in (1, 4):
        plan, run = plan_of(simulation, models), Run.create(tmp_path / str(models), {})
        for cell in plan.cells:
            run.add_cell(cell)
        looks, questions = counting(monkeypatch, os, "listdir"), counting(monkeypatch, os, "stat")
        assert missing_shards(plan, run) == len(plan.cells) * simulation.SHARDS
        assert len(looks) == len(plan.cells) and len(questions) <= 1  # whether anything has failed
        monkeypatch.undo()


def test_a_claim_costs_the_same_however_many_shards_there_are(simulation, tmp_path, monkeypatch):
    plan, run = plan_of(simulation, 1), Run.create(tmp_path / "run", {})
    cell, costs = plan.cells[0], []
    (tmp_path / "run" / "records" / cell.id).mkdir(parents=True)
    for present in (0, 150):
        for shard in range(present):
            run.shard_path(cell.id, shard).touch()
        calls = [counting(monkeypatch, os, name) for name in ("stat", "open", "listdir", "scandir", "unlink")]
        assert run.claim(cell, 160)
        run.claims.release(claim_name(cell.id, 160))
        costs.append([len(each) for each in calls])
        monkeypatch.undo()
    assert costs[0] == costs[1] and costs[0][2:4] == [0, 0] and sum(costs[0]) < 10


def test_resuming_looks_at_the_end_of_each_shard_alone(simulation, tmp_path, monkeypatch):
    plan, run = plan_of(simulation, 1), Run.create(tmp_path / "run", {})
    cell = plan.cells[0].id
    columns = simulation.columns([f"{i}" for i in range(128)], 0)
    for shard in range(3):
        run.write_shard(cell, shard, columns)
    size = run.shard_path(cell, 0).stat().st_size
    monkeypatch.setattr("robustcal.records.shardfile.read", lambda *_: pytest.fail("a whole shard was read"))
    assert run.discard_damaged(cell) == [] and size > 15_000
