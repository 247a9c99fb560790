"""The layout `claims`: what a card says was published beside what was measured; and the old word for a comparison."""

import numpy as np
import pytest
from cells import cell
from synthetic_run import make_run, records, with_correct

from robustcal.cli import main
from robustcal.records.store import Run
from robustcal.registry import models
from robustcal.report.claimed import claims_of, claims_tables
from robustcal.report.compare import comparisons, read_published
from robustcal.report.evaluate import evaluate
from robustcal.report.layouts import why_empty

N = 50
RIGHT = {("clean", "0"): 40, ("pgd", "2/255"): 20, ("apgd", "2/255"): 15, ("pgd", "8/255"): 5}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = Run.create(tmp_path_factory.mktemp("runs") / "run", {"command": "", "versions": {}, "device": "cpu", "seed": 0, "time": 0})
    for place, model in enumerate(("fare2-vit-l-14", "tiny-clip", "fare4-vit-l-14:local-dir:x")):
        for (attack, eps), count in RIGHT.items():
            one = cell(attack, eps, model=model, n=N, model_place=place)
            made.add_cell(one)
            made.write_shard(one.id, 0, with_correct(records(N, 10, 0.5, 100, 0), np.arange(N) < count))
    return made


def test_claims_stand_beside_what_was_measured(run):
    claims = models.cards()["fare2-vit-l-14"]["claims"]
    (table,) = claims_tables(evaluate([run], resamples=100))
    assert [row.labels for row in table.rows] == [("fare2-vit-l-14",)]  # no other model of the run has claims of its own
    values = [entry.value for entry in table.rows[0].entries]
    assert [(c.group, c.title) for c in table.columns[::3]] == [("clean", "published"), ("2/255", "published")]  # none at 8/255
    assert values == pytest.approx([claims["clean"], 0.8, 0.8 - claims["clean"], claims["2/255"], 0.3, 0.3 - claims["2/255"]])
    assert claims["source"] in table.caption and "digits" in table.caption


def test_another_file_under_a_cards_name_claims_nothing(run):
    assert claims_of("fare2-vit-l-14") and not claims_of("fare2-vit-l-14:local-dir:x") and not claims_of("tiny-clip")
    plain = evaluate([run], resamples=50, only=lambda source: source.cell.model == "tiny-clip")
    assert claims_tables(plain) == [] and "fare2" in why_empty("claims")


def test_every_published_claim_is_a_fraction_with_a_source():
    published = {name: claims for name in models.cards() if (claims := claims_of(name))}
    assert len(published) >= 10
    for name, claims in published.items():
        numbers = [value for key, value in claims.items() if key not in ("what", "source")]
        assert all(0 <= value <= 1 for value in numbers) and {"source", "clean"} <= set(claims), name


def test_the_old_word_for_a_comparison_is_understood_with_a_line(tmp_path, capsys):
    assert comparisons() == ["fare", "tecoa", "ucat"] and read_published("paper") == read_published("ucat")
    made = make_run(tmp_path / "run", models=("clip",), attacks=("clean", "pgd"), datasets=("digits",), radii=("1/255",), n=20)
    texts = []
    for word in ("paper", "ucat"):
        assert main(["report", str(made.path), "--compare", word, "--layout", "main"]) == 0
        texts.append(capsys.readouterr())
    assert texts[0].out == texts[1].out and "is called ucat now" in texts[0].err and not texts[1].err
