"""The record store alone: what is written is what is read, whatever happens in between; claims by the file system."""

import json
import os
import threading
import time
from itertools import cycle, islice

import numpy as np
import pytest
from cells import cell as make_cell
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_run import records

from robustcal.cell import SHARD
from robustcal.records import claims, shardfile
from robustcal.records.store import DamagedShard, Run, claim_name
from robustcal.types import UserError

CELL = "0123456789abcdef"


def cell(shards=4, **more):
    return make_cell(**{"id": CELL, "n": SHARD * shards, **more})


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path / "run", {"command": "test"})
    run.add_cell(cell())
    return run


@pytest.fixture(scope="module")
def rows():
    return records(SHARD, 5, 1.0, 60, 0)


@given(
    shards=st.sets(st.integers(0, 40), min_size=1, max_size=6), names=st.lists(st.text(max_size=20), min_size=3, max_size=3),
    values=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=3, max_size=3),
    lists=st.lists(st.lists(st.integers(0, 99), max_size=4), min_size=3, max_size=3), count=st.sampled_from([3, SHARD]),
)  # fmt: skip
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_what_is_read(tmp_path_factory, shards, names, values, lists, count):
    run = Run.create(tmp_path_factory.mktemp("store") / "run", {})
    names, values, lists = (list(islice(cycle(column), count)) for column in (names, values, lists))
    for shard in shards:
        run.write_shard(CELL, shard, {"id": names, "confidence": np.array(values), "labels": lists})
    assert run.present(CELL) == dict.fromkeys(sorted(shards), count)
    assert run.missing(cell(41)) == [shard for shard in range(41) if shard not in shards or count < SHARD]
    assert run.discard_damaged(CELL) == []
    found = run.read(CELL)
    assert list(found["id"]) == names * len(shards)
    np.testing.assert_array_equal(found["confidence"], values * len(shards))
    assert [list(row) for row in found["labels"]] == lists * len(shards)


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_to_a_shard_is_ever_read(run, rows, data):
    """Any truncation and any flipped byte: either the values are untouched, or the shard is refused and set aside."""
    run.write_shard(CELL, 0, rows)
    path = run.shard_path(CELL, 0)
    whole = path.read_bytes()
    if data.draw(st.booleans(), label="truncate"):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1), label="length")]
    else:
        at = data.draw(st.integers(0, len(whole) - 1), label="byte")
        damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255), label="xor")]) + whole[at + 1 :]
    path.write_bytes(damaged)
    try:
        if run.discard_damaged(CELL):
            assert run.missing(cell()) == [0, 1, 2, 3]
            return
        found = run.read(CELL)
    except DamagedShard as error:
        assert str(path) in str(error) and run.missing(cell()) == [0, 1, 2, 3]
        return
    for name, values in rows.items():
        assert np.array_equal(np.asarray(list(found[name])), np.asarray(list(values))), name


def test_the_footer_check_sees_truncation_and_foreign_shards(run, rows):
    for shard in range(4):
        run.write_shard(CELL, shard, rows)
    paths = [run.shard_path(CELL, shard) for shard in (0, 1, 3, 2)]
    paths[0].write_bytes(paths[0].read_bytes()[:-1])
    paths[1].write_bytes(paths[3].read_bytes())
    paths[2] = paths[2].rename(run.shard_path(CELL, 3, SHARD - 1))  # its name says that it holds fewer
    lines = run.discard_damaged(CELL)
    assert len(lines) == 3 and all(str(path) in line for path, line in zip(paths, lines))
    assert run.present(CELL) == {2: SHARD} and paths[0].with_suffix(".damaged").exists()


def test_a_shard_that_the_system_does_not_give_out_is_not_called_damaged(run, rows, monkeypatch):
    run.write_shard(CELL, 0, rows)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shardfile.Path, "read_bytes", refuse)
    with pytest.raises(UserError, match="Permission denied") as error:
        run.read(CELL)
    assert not isinstance(error.value, DamagedShard) and run.present(CELL) == {0: SHARD}


@pytest.mark.parametrize("text", ["", '{"id": "0123', "[]", "{}", "null"])
def test_a_damaged_cell_is_one_line_that_names_its_file_and_the_way_out(run, text):
    path = run.path / "records" / CELL / "cell.json"
    path.write_text(text)
    with pytest.raises(UserError, match=f"'{path}' .*remove it and run the same bench command again"):
        run.cells()
    path.unlink()
    run.add_cell(cell())
    assert run.cells() == [cell()]


def test_skipped_samples_are_counted_out(tmp_path, rows):
    run = Run.create(tmp_path / "run", {})
    run.add_cell(cell(skip_unreadable=True, n=SHARD))
    run.write_shard(CELL, 0, {name: column[:-2] for name, column in rows.items()}, skipped=["set/a", "set/b"])
    assert run.skipped(CELL) == ["set/a", "set/b"]
    (stored,) = run.cells()
    assert stored.n == SHARD and stored.skipped == 2 and len(run.read(CELL)["id"]) == SHARD - 2
    assert run.missing(stored) == []


def test_leftovers_of_killed_writers_go_once_they_are_old(run):
    folder = run.shard_path(CELL, 0).parent
    old, young = folder / ".00000.parquet.1.aa.tmp", folder / ".00001.parquet.1.bb.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 1e4,) * 2)
    run.discard_damaged(CELL)
    assert not old.exists() and young.exists()


# -- claims ----------------------------------------------------------------------------------------------------------


def other(run, **owner):
    """A claim on shard 0 as another process would have made it."""
    path = run.path / "claims" / claim_name(CELL, 0)
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "x", **owner}))
    return path


def test_one_of_many_threads_gets_a_claim(tmp_path):
    folder = tmp_path / "claims"
    folder.mkdir()
    got = []
    workers = [claims.Claims(folder) for _ in range(16)]
    threads = [threading.Thread(target=lambda w=w: got.append(w.take("shard"))) for w in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 15 + [True]


def test_one_of_many_thieves_gets_a_stale_claim(run):
    path = other(run)
    os.utime(path, (time.time() - 1e6,) * 2)
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(claims.Claims(run.path / "claims").take(path.name))) for _ in range(16)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got.count(True) == 1


def test_a_claim_of_a_dead_process_here_is_free_at_once_and_one_elsewhere_after_a_while(run):
    import socket

    other(run, host=socket.gethostname(), pid=2**22 + 1)
    assert run.claim(cell(), 0)
    run.claims.release(claim_name(CELL, 0))
    path = other(run)
    assert not run.claim(cell(), 0)
    os.utime(path, (time.time() - 2 * claims.SECONDS,) * 2)
    assert run.claim(cell(), 0)


@pytest.mark.parametrize("skew", [-86400, 86400])
def test_clock_skew_between_hosts_does_not_matter(run, skew, monkeypatch):
    """A claim renewed a moment ago, by the file system's clock, is live whatever this host's clock says."""
    path = other(run)
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + skew)
    assert not run.claim(cell(), 0)
    assert path.exists()


def test_a_claim_from_the_future_is_not_eternal(run):
    """Left over from before the file server's clock was set back."""
    os.utime(other(run), (time.time() + 1e6,) * 2)
    assert run.claim(cell(), 0)


def test_a_claim_without_owner_runs_out_soon(run):
    path = other(run)
    path.write_text("")
    assert not run.claim(cell(), 0)
    os.utime(path, (time.time() - 60,) * 2)
    assert run.claim(cell(), 0)


def test_nobody_renews_or_releases_a_claim_that_was_taken_over(run):
    assert run.claim(cell(), 0)
    path = other(run)
    before = path.stat().st_mtime_ns
    run.claims.renew(path.name)
    run.claims.release(path.name)
    assert path.exists() and path.stat().st_mtime_ns == before


def test_a_silent_worker_loses_its_claim_and_a_lively_one_keeps_it(run):
    run.claims.seconds = 0.3
    thief = claims.Claims(run.path / "claims", 0.3)
    name = claim_name(CELL, 0)
    assert run.claim(cell(), 0)
    with run.claims.renewing(name) as sign_of_life:
        for _ in range(12):
            time.sleep(0.1)
            sign_of_life()
        lively = thief.take(name)
        deadline = time.monotonic() + 20
        while not (stolen := thief.take(name)) and time.monotonic() < deadline:
            time.sleep(0.1)
    assert stolen and not lively
    assert (run.path / "claims" / name).exists()  # the silent worker did not remove what is the thief's now


def test_claims_on_finished_shards_are_swept(run, rows):
    path = other(run)
    run.write_shard(CELL, 0, rows)
    run.drop_claims([cell()])
    assert not path.exists()


def test_cells_that_have_no_record_are_empty_not_an_error(run):
    assert len(run.read(CELL)["id"]) == 0
    assert len(run.read(CELL, ["confidence"])["confidence"]) == 0
