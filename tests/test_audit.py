"""Runs checked by others: honest ones hold, forged ones do not, and what is said of all records is what follows."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

import robustcal
from robustcal.audit import stronger as more
from robustcal.audit.claims import Findings, Here, claims_of
from robustcal.audit.compare import LOGIT, Outcomes, among, same
from robustcal.audit.conclude import at_least, share_limits, tail
from robustcal.audit.draw import draw
from robustcal.audit.repeat import Repeater
from robustcal.audit.verb import verify
from robustcal.cell import to_json
from robustcal.cli import main
from robustcal.records.content import content_hash
from robustcal.records.signoff import as_bytes, read_signoff
from robustcal.records.store import Run
from robustcal.report.evaluate import evaluate
from robustcal.report.frame import csv_text
from robustcal.sweep import local
from robustcal.sweep.verify import measure
from robustcal.types import UserError

torch.set_num_threads(1)


def swept(out, **given):
    """A small run, computed in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "workers_for", lambda device, pending, asked=None: [device])
        asked = {"models": ["tiny-clip"], "attacks": ["clean", "pgd:steps=3"], "datasets": ["digits"], "eps": ["4/255"], "limit": 10}
        robustcal.bench(**{**asked, **given}, device="cpu", out=out, progress=False)
    return Run.open(out, mends=False)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return swept(
        tmp_path_factory.mktemp("audit") / "run", models=["tiny-clip", "tiny-tecoa"], eps=["2/255", "4/255"],
        attacks=["clean", "pgd:steps=3", "confidence:goal=max:steps=2"],
    )  # fmt: skip


@pytest.fixture
def forged(honest, tmp_path):
    """A copy that may be forged; without the table, which would tell as well."""
    shutil.copytree(honest.path, tmp_path / "forged")
    (tmp_path / "forged" / "cells.csv").unlink()
    return Run.open(tmp_path / "forged", mends=False)


def cell_of(run, attack="pgd", model="tiny-clip", eps="4/255"):
    found = [c for c in run.cells() if c.model.startswith(model) and c.attack.startswith(attack)]
    return next(c for c in found if c.kind == "clean" or c.eps == eps)


def put(run, cell, records, skipped=()):
    """Write records into a cell as the tool would, checksum and all."""
    for path in (run.path / "records" / cell.id).glob("*.parquet"):
        path.unlink()
    run.write_shard(cell.id, 0, {name: list(v) if v.dtype == object else v for name, v in records.items()}, skipped)


def renamed(run, cell, **identity):
    """Give a cell another identity, and the id and folder that go with it."""
    changed = replace(cell.identity, **identity)
    new = replace(cell, identity=changed, id=changed.digest())
    records = run.read(cell.id)
    shutil.rmtree(run.path / "records" / cell.id)
    run.add_cell(new)
    put(run, new, records)
    return new


def files_of(run):
    return {path.relative_to(run.path): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


# -- honest ------------------------------------------------------------------------------------------------------
def test_an_honest_run_holds_and_nothing_in_it_changes(honest, tmp_path, capsys):
    before = files_of(honest)
    assert main(["verify", str(honest.path), "--seed", "3", "--by", "Jo", "--out", str(tmp_path / "s.json"), "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert "64 of 64 records come out again" in said.out and "of the 100 do (--seed 3)" in said.out and "the run holds" in said.out
    assert "cells.csv" in said.err
    assert files_of(honest) == before
    signoff = read_signoff((tmp_path / "s.json").read_bytes(), "s.json")
    assert (signoff.samples, signoff.agree, signoff.population, signoff.by, signoff.table) == (64, 64, 100, "Jo", True)
    assert signoff.run == content_hash(honest) and signoff.verdict == "holds" and signoff.badge.startswith("checked: 64 of 64, by Jo, ")
    assert as_bytes(signoff) == (tmp_path / "s.json").read_bytes()


def test_all_records_make_a_certainty(honest):
    signoff = verify(honest, samples=1000, seed=1, cells=[cell_of(honest).id[:8]], device="cpu")
    assert (signoff.samples, signoff.population, signoff.at_least) == (10, 10, 1.0)


@pytest.mark.parametrize("seed", range(20))
def test_twenty_honest_runs_raise_no_alarm(seed, tmp_path):
    attacks = [["pgd:steps=4"], ["cw:steps=3:norm=l2"], ["apgd:steps=4"], ["square:queries=20"], ["noise"]]
    run = swept(tmp_path / "run", models=[("tiny-clip", "tiny-ucat")[seed % 2]], attacks=attacks[seed % 5], seed=seed, limit=6)
    signoff = verify(run, samples=6, device="cpu")
    assert (signoff.verdict, signoff.agree, signoff.at_least) == ("holds", 6, 1.0), signoff


def test_a_shard_repeated_whole_is_the_same_in_every_digit(honest):
    (claim,) = claims_of(honest, [cell_of(honest)], Here(), Findings())
    repeater = Repeater(honest, [claim])
    held, now = repeater.records(claim, range(10)), repeater.in_their_shards(claim, range(10))
    assert np.array_equal(held["top_logits"], np.array(now["top_logits"])) and np.array_equal(held["linf"], now["linf"])


# -- forged ------------------------------------------------------------------------------------------------------
def raised(records, row):
    """The records with the label of a row made the likeliest class, and everything that follows."""
    logits = np.zeros_like(records["top_logits"])
    np.put_along_axis(logits, records["top_classes"].astype(int), records["top_logits"], 1)
    logits[row, records["label"][row]] = logits[row].max() + 0.5
    found = measure(torch.from_numpy(logits), torch.tensor(records["label"]), None)
    kept = ("dirichlet_confidence", "log_alpha0", "au", "log_eu")
    return {**records, **{name: np.full(len(logits), np.nan) if name in kept else column for name, column in found.items()}}


def forge_table(run):
    text = csv_text([run]).splitlines()
    row = text[2].split(",")
    row[text[0].split(",").index("accuracy")] = "0.9"
    (run.path / "cells.csv").write_text("\n".join([*text[:2], ",".join(row), *text[3:]]) + "\n")


def forge_record(run):
    cell = cell_of(run)
    records = run.read(cell.id)
    put(run, cell, raised(records, int(np.flatnonzero(~records["correct"])[0])))


def forge_derived(run):
    cell = cell_of(run)
    put(run, cell, run.read(cell.id) | {"correct": np.ones(10, bool)})


def forge_checksum(run):
    cell = cell_of(run)
    path = next((run.path / "records" / cell.id).glob("*.parquet"))
    path.write_bytes(path.read_bytes().replace(b"robustcal.crc32", b"robustcal.crc33"))


def forge_prompts(run):
    path = run.path / "records" / cell_of(run).id / "cell.json"
    path.write_text(path.read_text().replace("{}", "a very clear {}"))


def forge_weights(run):
    """Records of another model under this one's name and hash."""
    put(run, cell_of(run), run.read(cell_of(run, model="tiny-tecoa").id))


def forge_hard_sample(run):
    cell = cell_of(run)
    records = run.read(cell.id)
    wrong = int(np.flatnonzero(~records["correct"])[0])
    path = run.path / "records" / cell.id / "cell.json"
    path.write_text(json.dumps(to_json(replace(cell, n=9))))
    put(run, cell, {name: np.delete(column, wrong, 0) for name, column in records.items()})


def forge_skipped(run):
    cell = renamed(run, cell_of(run), skip_unreadable=True)
    records = run.read(cell.id)
    put(run, cell, {name: column[1:] for name, column in records.items()}, [records["id"][0]])


def forge_radius(run):
    """Records of a smaller radius in the place of those of a larger one."""
    put(run, cell_of(run, eps="4/255"), run.read(cell_of(run, eps="2/255").id))


def forge_threat(run):
    cell = cell_of(run)
    renamed(run, cell, threat=replace(cell.threat, eps=1 / 255))


def forge_larger(run):
    """Records of a larger radius than is said."""
    put(run, cell_of(run, eps="2/255"), run.read(cell_of(run, eps="4/255").id))


def forge_labels(run):
    """The labels are the predictions: everything follows."""
    cell = cell_of(run)
    records = run.read(cell.id)
    put(run, cell, raised(records | {"label": records["prediction"]}, 0))


FORGED = {
    forge_table: (1, "accuracy 0.9 for"), forge_record: (1, "does not come out again"), forge_derived: (1, "correct does not follow"),
    forge_checksum: (2, "no checksum"), forge_prompts: (1, "class names and prompts are not those"),
    forge_weights: (1, "does not come out again"), forge_hard_sample: (1, "has no record of"), forge_skipped: (1, "can be read"),
    forge_radius: (1, "does not come out again"), forge_threat: (1, "threat model"), forge_larger: (1, "beyond the radius"),
    forge_labels: (1, "labels are not the data set's"),
}  # fmt: skip


@pytest.mark.parametrize("forge", FORGED, ids=lambda forge: forge.__name__)
def test_a_forged_run_is_caught(forge, forged, capsys):
    forge(forged)
    status, said = FORGED[forge]
    whole = ["--samples", "200" if "come out" in said else "5"]  # one record of 40 need not be drawn
    assert main(["verify", str(forged.path), "--seed", "5", "--device", "cpu", "--cells", "pgd", *whole]) == status
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("identity, said", [
    ({"weights": "sha256:other"}, "weights here are not"), ({"data": "other"}, "data here is not"),
    ({"attack_version": 99}, "version of the attack"), ({"prompts": "other"}, "prompts"), ({"order": "other"}, "order"),
])  # fmt: skip
def test_what_is_not_here_is_named_and_the_rest_is_checked(identity, said, forged, capsys):
    renamed(forged, cell_of(forged), **identity)
    status = main(["verify", str(forged.path), "--samples", "5", "--device", "cpu", "--cells", "pgd"])
    found = capsys.readouterr().out
    assert status == (1 if "prompts" in identity else 2) and said in found and "5 of 5 records come out again" in found


def test_a_batch_that_is_not_known_refutes_nothing(tmp_path):
    run = swept(tmp_path / "run", attacks=["a3:budget=6:rounds=2"])
    (cell,) = run.cells()
    signoff = verify(run, samples=5, seed=0, device="cpu")
    assert (signoff.samples, signoff.agree, signoff.verdict) == (5, 5, "holds")
    records = run.read(cell.id)
    put(run, cell, raised(records, int(np.flatnonzero(~records["correct"])[0])))
    (run.path / "cells.csv").unlink()
    signoff = verify(run, samples=10, seed=0, device="cpu")
    assert signoff.verdict == "not checked" and "depends on the batch" in signoff.unchecked[0] and signoff.samples == 9
    assert signoff.at_least == 0.9  # what could not be looked at counts against the run


# -- what follows --------------------------------------------------------------------------------------------------
def spread(sizes, bad):
    """Every way to spread so many bad records over the stretches."""
    return (found for found in product(*(range(size + 1) for size in sizes)) if sum(found) == bad)


def likely(sizes, found, unlike):
    """Probability of at most `unlike` bad ones, one record drawn from each stretch: by convolution."""
    law = np.ones(1)
    for size, bad in zip(sizes, found):
        law = np.convolve(law, [1 - bad / size, bad / size])
    return law[: unlike + 1].sum()


@pytest.mark.parametrize("population, samples", [(6, 2), (9, 3), (10, 4), (12, 4), (7, 5), (8, 4), (5, 5), (3, 1)])
@pytest.mark.parametrize("confidence", [0.95, 0.6])
def test_the_limit_holds_however_bad_records_are_spread(population, samples, confidence):
    edges = np.arange(samples + 1) * population // samples
    sizes = np.diff(edges)
    for unlike in range(samples + 1):
        worst = round(population * (1 - at_least(population, samples, unlike, confidence)))
        assert unlike <= worst <= population - (samples - unlike)
        for bad in range(worst + 1, population - (samples - unlike) + 1):
            assert max((likely(sizes, found, unlike) for found in spread(sizes, bad)), default=0) < 1 - confidence + 1e-12


def test_the_limit_is_the_binomial_one_where_there_are_many():
    assert at_least(21504, 64, 0) == pytest.approx(0.05 ** (1 / 64), abs=1e-4) == pytest.approx(0.9543, abs=1e-4)
    assert tail(64, 0, 3.2) == pytest.approx((1 - 3.2 / 64) ** 64)
    assert at_least(64, 64, 3) == 61 / 64
    low, high = share_limits(5, 64)
    assert (low, high) == (pytest.approx(0.0259, abs=1e-4), pytest.approx(0.1730, abs=1e-4))  # Clopper and Pearson's own


def test_one_record_of_each_stretch_and_each_as_likely():
    rows, counts = [5, 0, 7, 3], Counter()
    for seed in range(3000):
        found = draw(rows, 5, seed)
        flat = [sum(rows[: place.cell]) + place.row for place in found]
        assert [at // 3 for at in flat] == [0, 1, 2, 3, 4] and all(place.row < rows[place.cell] for place in found)
        counts.update(flat)
    assert len(counts) == 15 and max(abs(count - 1000) for count in counts.values()) < 5 * (3000 * (1 / 3) * (2 / 3)) ** 0.5
    assert len(set(draw(rows, 99, 0))) == 15 and draw([], 3, 0) == []


# -- floating point ------------------------------------------------------------------------------------------------
def outcomes(logits, flags=""):
    logits = np.asarray(logits, np.float64)
    order = np.argsort(-logits, axis=1)
    count = len(logits)
    zeros = {name: np.zeros(count) for name in ("linf", "l2", "forwards", "backwards", "zero_gradients")}
    return Outcomes.of({"top_logits": np.take_along_axis(logits, order, 1), "top_classes": order, "flags": [flags] * count, **zeros})


def test_rounding_is_told_apart_from_what_it_cannot_do():
    base = np.array([[3.0, 1.0, 0.0]])
    assert same(outcomes(base), outcomes(base + LOGIT / 2)) and not same(outcomes(base), outcomes(base + 2 * LOGIT))
    assert not same(outcomes(base), outcomes(base, "zero-gradients"))
    wide = outcomes(base + np.random.default_rng(0).normal(0, 0.1, (9, 3)))
    assert among(outcomes(base), wide) and not among(outcomes(base + [[0, 2, 0]]), wide)
    narrow = outcomes(base + np.random.default_rng(0).normal(0, 1e-5, (9, 3)))
    assert not among(outcomes(base + 0.05), narrow) and not among(outcomes(base, "non-finite"), narrow)
    draws = np.random.default_rng(1).normal(0, 0.1, (400, 10, 4))
    assert np.mean([among(outcomes(one[:1]), outcomes(one[1:])) for one in draws]) > 0.97


# -- stronger ------------------------------------------------------------------------------------------------------
def test_survivors_fall_to_more_and_gaps_rise(honest, forged, monkeypatch):
    monkeypatch.setattr(more, "SUITE", ("pgd:steps=10", "square:queries=5"))
    monkeypatch.setattr(more, "LONGER", {"steps": 10, "restarts": 2})
    monkeypatch.setattr(more, "TRANSFER", "pgd:steps=2")
    cells = [cell.id for cell in honest.cells() if cell.model.startswith("tiny-tecoa")]
    signoff = verify(forged, samples=6, seed=1, stronger=True, cells=cells, device="cpu")
    fall, rise = signoff.stronger
    assert fall.what == more.FALL and rise.what == more.RISE
    assert 0 <= fall.lo <= fall.value <= fall.hi <= 1 and 0 <= rise.lo <= rise.value <= rise.hi
    assert rise.population == 20 and rise.samples == 6
    back = read_signoff(as_bytes(signoff), "x")
    assert replace(back, hash="") == signoff


def test_survivors_are_those_of_all_attacks_of_a_radius(honest):
    claims = claims_of(honest, honest.cells(), Here(), Findings())
    groups = more.groups_of(claims)
    assert len(groups) == 4 and all(len(group.claims) == 1 for group in groups)
    for group in groups:
        assert group.rows.tolist() == np.flatnonzero(honest.read(group.claims[0].cell.id)["correct"]).tolist()
    twice = more.groups_of([*claims, *(replace(c, records={**c.records, "correct": np.arange(10) > 4}) for c in claims)])
    assert all(set(both.rows) == {row for row in one.rows if row > 4} for one, both in zip(groups, twice))


@pytest.mark.parametrize("options, message", [
    (["--samples", "0"], "--samples '0'"), (["--cells", "nothing"], "no cell of"), (["--seed", "-1"], "seed -1"),
    (["--table", "nowhere.csv"], "cannot be read"), (["--by", "a\nb"], "--by"),
])  # fmt: skip
def test_mistakes_are_one_line(honest, options, message, capsys):
    assert main(["verify", str(honest.path), *options]) == 2
    said = capsys.readouterr().err.splitlines()
    assert message in said[-1] and said[-1].startswith("robustcal: ")


def test_a_run_without_cells_is_one_line(tmp_path):
    with pytest.raises(UserError, match="has no cells"):
        verify(Run.create(tmp_path / "run", {"command": ""}), device="cpu")


def test_another_machine_is_no_forger(honest):
    """Other kernels stand in for another machine: their sums come in another order."""
    with torch.backends.mkldnn.flags(enabled=False):
        signoff = verify(honest, samples=30, seed=4, cells=["pgd", "confidence"], device="cpu", table=None)
    assert signoff.verdict == "holds" and signoff.agree == 30


def test_a_report_says_where_cells_disagree_on_labels(honest, forged):
    assert not [note for note in evaluate([honest], resamples=10).notes if "labels" in note]
    forge_labels(forged)
    (note,) = [note for note in evaluate([forged], resamples=10).notes if "labels" in note]
    assert note.startswith("conflict: ") and "labels are not those of" in note
