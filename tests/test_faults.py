"""Whatever goes wrong, the table that comes out in the end is the same, and what went wrong is one line."""

import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cells import cell as make_cell
from PIL import Image

import robustcal
from robustcal import registry
from robustcal.cli import main
from robustcal.records.store import Run, claim_name
from robustcal.sweep import shift
from robustcal.sweep.events import CellFailed, Restarted, ShardDone
from robustcal.sweep.local import execute
from robustcal.sweep.plan import Request, Sweep, make_plan
from robustcal.sweep.run import make_attack, run_shard
from robustcal.sweep.worker import Worker
from robustcal.types import Batch, UserError

PLUGIN = '''
"""A linear model without weights."""
import torch
from robustcal import register
from robustcal.clip.classifier import LogitClassifier

class Linear:
    fingerprint = "linear-0"
    def classifier(self, classnames, templates=()):
        body = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(6), torch.nn.Flatten(), torch.nn.Linear(108, len(classnames)))
        body[2].weight.data = torch.randn(len(classnames), 108, generator=torch.Generator().manual_seed(0))
        body[2].bias.data.zero_()
        return LogitClassifier(body, classnames)

@register.model
def fault_linear():
    """A random linear model."""
    return Linear()
'''


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "fault_net.py"
    path.write_text(PLUGIN)
    registry.load_plugin_file(path)
    yield str(path)
    registry.models.plugins.pop("fault-linear", None)


def arguments(plugin, out, *more, dataset="digits"):
    return ["bench", "--plugin", plugin, "--models", "fault-linear", "--attacks", "clean", "pgd:steps=2", "--datasets", dataset,
            "--eps", "8/255", "--limit", "200", "--device", "cpu", "--workers", "1", "--no-report", "--out", str(out), *more]  # fmt: skip


@pytest.fixture(scope="module")
def whole(plugin, tmp_path_factory):
    """The run directory of an undisturbed sweep."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main(arguments(plugin, out)) == 0
    return out


def table(out):
    return (Path(out) / "cells.csv").read_bytes()


def request_of(attacks="clean", dataset="digits", limit=None, **more):
    return Request((Sweep.of("fault-linear", attacks, [dataset], "8/255", limit),), **more)


def tiny_plan():
    return make_plan(request_of("clean,pgd:steps=2", limit=200))


def started(plan, path, **more):
    run = Run.create(path, {}, **more)
    for cell in plan.cells:
        run.add_cell(cell)
    return run


# -- kill -9 ---------------------------------------------------------------------------------------------------------

STORE = ["robustcal/records/store.py", "robustcal/records/shardfile.py", "robustcal/records/claims.py", "pyarrow/parquet/core.py"]
ENGINE = ["robustcal/api.py", "sweep/local.py", "sweep/worker.py", "sweep/shift.py", "sweep/run.py", "report/frame.py"]


@pytest.fixture(scope="module")
def doomed(plugin):
    """A warm process that runs commands in forked children and kills them: ask(argv, where, kill_at)."""
    script = Path(__file__).with_name("doomed.py")
    first = ["bench", "--plugin", plugin, "--models", "fault-linear", "--attacks", "clean", "--datasets", "digits", "--limit", "20",
             "--device", "cpu", "--workers", "1", "--no-report"]  # fmt: skip
    process = subprocess.Popen([sys.executable, str(script), *first], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(argv, where=(), kill_at=None):
        process.stdin.write(json.dumps({"argv": argv, "where": list(where), "kill_at": kill_at}) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield ask
    process.stdin.close()
    process.wait(60)


def test_kill_nine_at_twenty_random_moments(plugin, whole, doomed, tmp_path):
    """Fourteen kills inside the store (between open, write, fsync, rename, unlink), six anywhere in the package."""
    generator = np.random.default_rng(7)
    killed = 0
    for where, times in ((STORE, 14), (ENGINE, 6)):
        answer = doomed(arguments(plugin, tmp_path / "count"), where)
        assert answer["status"] == 0 and answer["moments"] > 50
        assert table(tmp_path / "count") == table(whole)
        shutil.rmtree(tmp_path / "count")
        for moment in generator.integers(1, answer["moments"], times):
            out = tmp_path / f"killed-{killed}"
            assert doomed(arguments(plugin, out), where, int(moment))["status"] == -9
            assert doomed(arguments(plugin, out))["status"] == 0
            assert table(out) == table(whole), f"killed at moment {moment} of {answer['moments']} in {where}"
            assert not [path.name for path in (out / "claims").iterdir() if not path.name.startswith(".")]
            killed += 1
    assert killed == 20


def test_a_run_killed_again_and_again_ends_with_the_same_table(plugin, whole, doomed, tmp_path):
    """Each run continues the last one's directory and lives a little longer; nothing that was finished is lost."""
    out, kept, kills = tmp_path / "run", 0, 0
    while (answer := doomed(arguments(plugin, out), STORE, 200 + 150 * kills))["status"] == -9:
        kills += 1
        now = len(list(out.glob("records/*/*.parquet")))
        assert now >= kept
        kept = now
    assert kills > 3 and answer["status"] == 0 and table(out) == table(whole)


def test_a_worker_that_is_killed_is_started_again(plugin, whole, tmp_path):
    """Two worker processes; one is killed as soon as there are two, and the driver goes on."""
    import multiprocessing

    events, victims = [], []

    def hunt():
        deadline = time.monotonic() + 120
        while not victims and time.monotonic() < deadline:
            children = multiprocessing.active_children()
            if len(children) == 2:
                victims.append(children[0])
                children[0].kill()
            time.sleep(0.01)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    run = robustcal.bench(
        models=["fault-linear"], attacks=["clean", "pgd:steps=2"], datasets=["digits"], eps=["8/255"], limit=200, device="cpu",
        workers=2, plugins=[plugin], out=tmp_path / "run", progress=events.append,
    )  # fmt: skip
    hunter.join()
    assert victims and {Restarted, ShardDone} <= {type(event) for event in events}
    assert table(run.path) == table(whole)


# -- several drivers, workers that hang ------------------------------------------------------------------------------


def test_two_drivers_on_one_run_directory(plugin, whole, tmp_path):
    """Two processes that know nothing of each other: each shard is computed once, both end with the whole table."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "robustcal.cli", *arguments(plugin, out)]
    drivers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [driver.communicate(timeout=300) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], said
    assert table(out) == table(whole)


def test_the_shard_of_a_worker_that_hangs_is_taken_over(plugin, tmp_path, monkeypatch):
    """One worker stops inside the attack with its process alive; another one finishes the run without it."""
    monkeypatch.setattr(shift, "POLL", 0.05)
    plan = tiny_plan()
    run = started(plan, tmp_path / "run", claim_seconds=0.5)
    hanging, let_go = threading.Event(), threading.Event()

    first = Worker(plan)
    attack = first.attack

    def hang(*given):
        hanging.set()
        let_go.wait(60)
        return attack(*given)

    monkeypatch.setattr(first, "attack", hang)
    thread = threading.Thread(target=lambda: list(shift.work(first, run)), daemon=True)
    thread.start()
    assert hanging.wait(20)
    other = Run.open(tmp_path / "run", claim_seconds=0.5)
    done = list(shift.work(Worker(plan), other))
    assert len(done) == plan.shards
    assert not any(other.missing(cell) for cell in plan.cells)
    before = {cell.id: other.read(cell.id)["top_logits"] for cell in plan.cells}
    let_go.set()
    thread.join(20)
    assert not thread.is_alive() and not other.failures()  # what it writes late is the same
    assert all(np.array_equal(other.read(name)["top_logits"], kept) for name, kept in before.items())


def test_a_driver_waits_for_the_shards_that_others_hold(plugin, tmp_path, monkeypatch):
    monkeypatch.setattr(shift, "POLL", 0.05)
    plan = tiny_plan()
    run, other = started(plan, tmp_path / "run"), Run.open(tmp_path / "run")
    cell = plan.cells[0]
    assert other.claim(cell, 0)
    computed = Worker(plan).compute(cell, 0)

    def finish():
        time.sleep(0.5)
        other.write_shard(cell.id, 0, computed.records, computed.skipped)
        other.claims.release(claim_name(cell.id, 0))

    thread = threading.Thread(target=finish)
    thread.start()
    own = {(event.cell, event.shard) for event in shift.work(Worker(plan), run)}
    thread.join()
    assert (cell.id, 0) not in own and not any(run.missing(c) for c in plan.cells)


# -- disk and memory -------------------------------------------------------------------------------------------------


def one_line(capsys, *words):
    error = capsys.readouterr().err
    assert error.startswith("robustcal: ") and error.count("\n") == 1, error
    for word in words:
        assert word in error, error


def test_a_full_disk_is_one_line_and_the_run_continues_when_there_is_room(plugin, whole, tmp_path, capsys, monkeypatch):
    out, room = tmp_path / "run", [2]
    fsync = os.fsync

    def full(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}") or ".parquet" not in os.readlink(f"/proc/self/fd/{handle}"):
            return fsync(handle)
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= 1
        return fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    assert main(arguments(plugin, out)) == 2
    one_line(capsys, "No space left on device", "kept")
    assert len(list(out.glob("records/*/*.parquet"))) == 2 and not list(out.rglob("*.tmp"))
    monkeypatch.undo()
    assert main(arguments(plugin, out)) == 0 and table(out) == table(whole)


def test_a_file_system_that_is_really_full(plugin, tmp_path):
    """A file size limit of the kernel, in a child: every write beyond it fails."""
    out = tmp_path / "run"
    code = (
        "import resource, sys; from robustcal.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments(plugin, out)], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("robustcal: cannot write") and done.stderr.count("\n") == 1, done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 9000
    assert not list(out.rglob("*.parquet"))


def test_a_read_only_directory_is_one_line(plugin, tmp_path, capsys, monkeypatch):
    started(tiny_plan(), tmp_path / "run")
    real = os.open

    def read_only(path, flags, *more, **named):
        if flags & os.O_CREAT and "claims" in str(path):
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", read_only)
    assert main(arguments(plugin, tmp_path / "run")) == 2
    one_line(capsys, "Read-only file system")


def test_host_memory_that_runs_out_halves_the_batch():
    """The host's allocator says no with a RuntimeError of its own: a real one here, of a petabyte."""
    torch.manual_seed(0)
    body = robustcal.clip.classifier.LogitClassifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5)), "abcde")
    batch = Batch(tuple(map(str, range(16))), torch.rand(16, 3, 8, 8), torch.zeros(16, dtype=torch.long))
    cell = make_cell("pgd", "8/255", model="m", dataset="d")
    honest, sizes = make_attack("pgd:steps=2"), []

    def greedy(classifier, images, labels, threat, noise):
        sizes.append(len(images))
        if len(images) > 4:
            torch.empty(1 << 50, dtype=torch.uint8)
        return honest(classifier, images, labels, threat, noise)

    halved = run_shard(cell, batch, body, greedy, 16)
    assert sizes == [16, 8, 4, 4, 4, 4]
    assert np.array_equal(halved["top_logits"], run_shard(cell, batch, body, honest, 4)["top_logits"])

    def broken(*_):
        raise RuntimeError("shapes do not match")

    with pytest.raises(UserError, match="'pgd' on model 'm', dataset 'd': RuntimeError: shapes do not match"):
        run_shard(cell, batch, body, broken, 16)


# -- images that do not decode ---------------------------------------------------------------------------------------


@pytest.fixture
def pets(tmp_path):
    """Two classes, 160 images: two shards, with one broken image in each, and a healthy set beside it."""
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(80):
            Image.fromarray(generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "pets" / name / f"{number:03d}.png")
    for name in ("cat/007.png", "dog/079.png"):
        (tmp_path / "pets" / name).write_bytes(b"this is not an image")
    return f"folder:{tmp_path / 'pets'}:resolution=16"


def test_unreadable_images_fail_their_cells_are_named_and_counted_and_others_finish(plugin, pets, tmp_path, capsys):
    args = arguments(plugin, tmp_path / "run")
    args.insert(args.index("digits"), pets)
    assert main(args) == 2
    at_once, at_the_end, after = capsys.readouterr().err.splitlines()
    assert at_once.startswith("robustcal: failed: ") and re.search(r"007\.png|079\.png", at_once)
    assert at_the_end.startswith("robustcal: failed: dataset 'folder:") and "007.png" in at_the_end
    assert "2 of 160 images" in at_the_end and "--skip-unreadable" in at_the_end and "everything else is computed" in after
    assert len(Run.open(tmp_path / "run").failures()) == 2  # both attacks on it; one is enough to tell
    cells = pd.read_csv(tmp_path / "run" / "cells.csv")
    assert len(cells) == 2 and cells.dataset.str.startswith("digits").all()


def test_unreadable_images_are_skipped_when_asked_and_that_is_recorded_and_flagged(plugin, pets, tmp_path):
    out = tmp_path / "run"
    assert main(arguments(plugin, out, "--skip-unreadable", dataset=pets)) == 0
    cells = pd.read_csv(out / "cells.csv")
    assert set(cells.n) == {158} and cells["flags"].str.contains("unreadable-skipped").all()
    run = Run.open(out)
    for cell in run.cells():
        assert cell.identity.skip_unreadable is True and cell.n == 160 and cell.skipped == 2
        assert sorted(name.rsplit("/", 1)[1] for name in run.skipped(cell.id)) == ["007.png", "079.png"]
    assert run.header["invocations"][0]["request"]["skip_unreadable"] is True


def test_skipping_is_part_of_a_cells_identity_and_nothing_else_changes_ids(plugin):
    strict, lenient = (make_plan(request_of(limit=20, skip_unreadable=skip)).cells[0] for skip in (False, True))
    assert strict.id != lenient.id and strict.identity == replace(lenient.identity, skip_unreadable=False)


def test_an_engine_that_ends_with_unfinished_datasets_does_not_claim_success(plugin, pets, tmp_path):
    request = request_of(dataset=pets)
    plan = make_plan(request)
    run = started(plan, tmp_path / "run")
    (event,) = execute(plan, run, request, device="cpu", workers=1)
    assert isinstance(event, CellFailed) and (event.cell, event.dataset) == (plan.cells[0].id, plan.cells[0].dataset)
    assert re.search(r"007\.png|079\.png", event.reason) and run.failures() == {event.cell: event.reason}
