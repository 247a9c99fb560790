"""Test-time defences in reports: flags of attacks that ignore them, the ladder, and what is left of a gain."""

import numpy as np
import pytest
from cells import cell
from synthetic_run import records, with_correct

from robustcal.metrics.defences import ABOVE_CLEAN, NOT_ADAPTIVE, above, averages, defence_flags
from robustcal.metrics.validity import exceeds
from robustcal.records.store import Run
from robustcal.report.adaptive import adaptive_tables, rung_of
from robustcal.report.evaluate import evaluate
from robustcal.report.layouts import why_empty
from robustcal.report.tables import text

N = 100
STATIC, OTHER, PGD = "transfer:from=tiny-clip:steps=10", "transfer:from=tiny-tecoa:steps=10", "pgd:steps=10"
EOT, BPDA, SQUARE = "eot:draws=4:steps=10", "bpda:draws=4:steps=10", "square:queries=200"
KINDS = {STATIC: "transfer", OTHER: "transfer", SQUARE: "black-box", "clean": "clean", "noise": "control"}


def one(attack, model="m", eps="2/255", **more):
    return cell(attack, eps, model=model, n=N, kind=KINDS.get(attack, "white-box"), **more)


def right(count):
    return {"id": np.arange(N).astype(str), "correct": np.arange(N) < count}


def flags(defence, *pairs):
    held = {c.id: right(count) for c, count in pairs}
    return defence_flags([c for c, _ in pairs], dict.fromkeys(held, defence), held.__getitem__)


@pytest.mark.parametrize(
    "defence, attacks, flagged",
    [
        (("randomised",), [STATIC], True), (("randomised",), [STATIC, PGD], True), (("randomised",), [STATIC, SQUARE], True),
        (("randomised",), [STATIC, EOT], False), (("randomised",), [PGD, BPDA], False), (("randomised",), ["autoattack:rand"], False),
        (("randomised",), ["eot:draws=1:steps=10"], True), (("adapting",), [STATIC, OTHER, SQUARE], True),
        (("adapting",), [STATIC, PGD], False), ((), [STATIC], False), (("randomised",), ["noise"], False),
    ],
)  # fmt: skip
def test_a_defence_that_is_only_attacked_obliviously_is_flagged(defence, attacks, flagged):
    found = flags(defence, *((one(attack), 50) for attack in attacks))
    assert found == ({one(attack).id: [NOT_ADAPTIVE] for attack in attacks} if flagged else {})


def test_the_flag_is_of_one_radius_and_one_model():
    found = flags(("randomised",), (one(STATIC), 50), (one(EOT, eps="1/255"), 50), (one(EOT, model="another"), 50))
    assert found == {one(STATIC).id: [NOT_ADAPTIVE]}


@pytest.mark.parametrize("clean, attacked", [(50, 60), (50, 59), (60, 50)])
def test_more_right_under_attack_than_without(clean, attacked):
    expected = {one(PGD).id: [ABOVE_CLEAN]} if exceeds(attacked - clean, 0) else {}
    assert flags((), (one("clean", eps="0"), clean), (one(PGD), attacked)) == expected
    assert not above(right(90), {**right(50), "id": np.arange(1, N + 1).astype(str)})


def test_draws_are_read_from_the_spec():
    assert [averages(one(spec)) for spec in (EOT, BPDA, PGD, "eot:draws=1", "autoattack:rand", "autoattack")] == [
        True, True, False, False, True, False,
    ]  # fmt: skip


DEFENDED = "ttc:model=tiny-clip:seed=0"
#: Samples that are right on each rung, of the base and of the defence.
COUNTS = {"clean": (80, 70), STATIC: (20, 60), OTHER: (50, 62), PGD: (20, 40), EOT: (20, 30), BPDA: (20, 25), SQUARE: (30, 45)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = Run.create(tmp_path_factory.mktemp("runs") / "run", {"command": "", "versions": {}, "device": "cpu", "seed": 0, "time": 0})
    for place, model in enumerate(("tiny-clip", DEFENDED)):
        for attack, counts in COUNTS.items():
            each = one(attack, model, model_place=place, dataset="world-shapes")
            made.add_cell(each)
            made.write_shard(each.id, 0, with_correct(records(N, 10, 0.5, 100, 0), np.arange(N) < counts[place]))
            made.remark(each.id, "defence", ("randomised",) if place else ())
    return made


def test_every_attack_stands_on_its_rung(run):
    found = {(c.meta.model, c.meta.attack): rung_of(c) for c in evaluate([run], resamples=50).cells if c.kind != "worst"}
    for model in ("tiny-clip", DEFENDED):
        assert [found[model, attack] for attack in COUNTS] == [
            None, "static", "transfer", "deployed", "EOT", "straight-through", "black box",
        ]  # fmt: skip


def test_the_ladder_says_what_is_left(run):
    results = evaluate([run], resamples=200)
    table, taken = adaptive_tables(results)
    base, defence = ([entry.value for entry in row.entries] for row in table.rows)
    assert base[:8] == pytest.approx([0.8, 0.2, 0.5, 0.2, 0.2, 0.2, 0.3, 0.2]) and base[8:] == [None, None]
    assert defence == pytest.approx([0.7, 0.6, 0.62, 0.4, 0.3, 0.25, 0.45, 0.25, 0.4, 0.05])
    assert [row.labels[0] for row in table.rows] == ["tiny-clip", "ttc"] and table.rows[1].entries[8].significant
    assert [entry.value for entry in taken.rows[0].entries] == pytest.approx([-0.1, -0.08, -0.3, -0.4, -0.45, -0.25, -0.45])
    assert all(entry.lo <= entry.value <= entry.hi for entry in taken.rows[0].entries)
    assert "+40.0 points over tiny-clip under the static attack, +5.0 [" in text(table)


def test_without_an_adaptive_attack_the_table_says_so(run):
    only = evaluate([run], resamples=50, only=lambda source: source.cell.attack in ("clean", STATIC, PGD))
    table = adaptive_tables(only)[0]
    assert table.rows[1].entries[1].flags == (NOT_ADAPTIVE,) and table.rows[0].entries[1].flags == ()
    worst = next(c for c in only.cells if c.kind == "worst" and c.meta.model == DEFENDED)
    assert NOT_ADAPTIVE in worst.flags
    plain = evaluate([run], resamples=50, only=lambda source: source.cell.model == "tiny-clip")
    assert adaptive_tables(plain) == [] and "ttc" in why_empty("adaptive")
