"""A flag belongs to the numbers that it concerns, an average has the flags of what it averages, and reports begin with what is valid."""

from __future__ import annotations

import csv
import io

import pytest
from browser import CHROMIUM, Browser
from synthetic_run import make_run

from robustcal.metrics.concerns import concerning, is_valid
from robustcal.metrics.validity import FLAGS
from robustcal.report import markup
from robustcal.report.averages import Averages, entry_of, fill
from robustcal.report.layouts import build
from robustcal.report.parts import first_shown
from robustcal.report.report import gather, write_report
from robustcal.report.stats import average
from robustcal.report.tables import comma_separated, text


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """`worst` is over AutoAttack too, which returns clean images where it fails."""
    run = make_run(tmp_path_factory.mktemp("flags") / "run", attacks=("clean", "pgd", "autoattack"), n=60)
    return gather([run.path], resamples=100)


@pytest.fixture(scope="module")
def board(results):
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    address = write_report(results, ["html"], results.runs[0].path / "report")[-1]
    with Browser() as browser:
        browser.open(address)
        yield browser
        assert browser.complaints() == []


@pytest.mark.parametrize("flag", FLAGS)
def test_accuracy_only_concerns_all_but_predictions_and_other_flags_everything(flag):
    assert bool(concerning("accuracy", [flag])) == bool(concerning("h", [flag])) == (flag != "accuracy-only")
    for number in ("ece", "confidence", "entropy", "brier", "accuracy_at_80", "map", "a_number_of_ones_own"):
        assert concerning(number, [flag]) == (flag,)
        assert is_valid(number, [flag]) == (flag != "accuracy-only")


def test_an_average_has_the_flags_of_its_cells(results):
    cells = [cell for cell in results.cells if (cell.model, cell.attack, cell.eps) == ("clip", "pgd", "1/255")]
    union = list(dict.fromkeys(flag for cell in cells for flag in cell.flags))
    assert union and list(average([cell.numbers for cell in cells]).flags) == union
    averages = Averages(results)
    assert list(averages.get("clip", "pgd", "1/255").flags) == union
    assert set(averages.harmonic("clip", "pgd", "1/255").flags) == set(union)
    assert averages.clean("clip").flags == ()


def test_tables_say_so_in_every_form(results):
    table = next(table for table in build("calibration", results) if table.name == "calibration-1-255")
    for (attack, _), row in table.numbers().items():
        assert "accuracy-only" not in row["", "Acc"].flags
        assert ("accuracy-only" in row["", "ECE"].flags) == (attack in ("autoattack", "worst"))
        if attack in ("autoattack", "worst"):
            assert row["", "ECE"].rank == row["", "Brier"].rank == ""  # nothing is best of what describes nothing
    assert any(row["", "Acc"].best for (attack, _), row in table.numbers().items() if attack == "autoattack")
    assert "accuracy-only" in markup.markdown(table) and "accuracy-only" in markup.latex(table) and "accuracy-only" in text(table)
    rows = list(csv.DictReader(io.StringIO(comma_separated(table))))
    assert all("accuracy-only" in row["ECE flags"].split(";") for row in rows if row["Attack"] == "worst")
    assert not any("accuracy-only" in row.get("Acc flags", "") for row in rows)


def test_a_mixture_is_never_the_best_even_where_it_is_the_lowest(results):
    cells = {c.model: c for c in results.cells if (c.dataset, c.attack, c.eps) == ("digits", "autoattack", "1/255")}
    assert all(entry.rank == "" for entries in fill(list(cells), [("ece", cells.get)]).values() for entry in entries)
    assert any(entry.best for entries in fill(list(cells), [("accuracy", cells.get)]).values() for entry in entries)
    assert entry_of(cells["clip"].numbers, "accuracy").flags != entry_of(cells["clip"].numbers, "ece").flags
    assert entry_of(None, "ece").empty and entry_of(cells["clip"].numbers, "no such number").empty


def test_reports_begin_with_an_attack_whose_calibration_is_valid(results):
    assert "worst" in results.values("attack")
    assert first_shown(results) == ("pgd", "2/255")


def test_where_nothing_is_valid_the_report_begins_with_what_there_is(tmp_path):
    only = gather([make_run(tmp_path / "only", attacks=("clean", "autoattack"), datasets=("digits",), n=10)], resamples=10)
    assert first_shown(only) == ("autoattack", "2/255")
    clean = gather([make_run(tmp_path / "clean", attacks=("clean",), datasets=("digits",), n=10)], resamples=10)
    assert first_shown(clean) == (None, "0")
    noise = gather([make_run(tmp_path / "noise", attacks=("clean", "noise"), datasets=("digits",), n=10)], resamples=10)
    assert first_shown(noise) == (None, "1/255")


# -- on the page ----------------------------------------------------------------------------------------------------


def flags_on(board, attack, number, column):
    """Rows of the board whose number in a column carries a flag, after these were chosen."""
    board.run(
        f"(board.attack = page.attacks.findIndex(a => a.label === '{attack}'), board.eps = '{'0' if attack == 'clean' else '1/255'}', board.metric = '{number}', refresh())"
    )
    return board.run(f"[...document.querySelectorAll('#board tbody tr')].filter(r => r.children[{column}].querySelector('.flag')).length")


def test_the_page_opens_on_it(board):
    assert board.run("[page.attacks[board.attack].label, board.eps, board.metric]") == ["pgd", "2/255", "accuracy"]


@pytest.mark.parametrize("column", [1, 3], ids=["average", "cell"])
def test_the_page_flags_the_numbers_that_a_flag_concerns(board, results, column):
    plain = flags_on(board, "autoattack", "accuracy", column)
    assert plain == 0
    assert flags_on(board, "autoattack", "ece", column - (column == 3)) == 3
    assert flags_on(board, "clean", "ece", 1) == 0


def test_marks_of_the_page_are_those_of_the_tables(board, results):
    """Bold, dagger and underline of every number, against the entries that Markdown and LaTeX print."""
    averages = Averages(results)
    for attack in ("pgd", "worst"):
        for number in ("accuracy", "ece"):
            flags_on(board, attack, number, 1)
            shown = board.run(
                "Object.fromEntries([...document.querySelectorAll('#board tbody tr')].map(r => [r.children[0].textContent, "
                "[r.children[1], r.children[document.querySelectorAll('#board thead th').length - 1]].map(c => "
                "[getComputedStyle(c.querySelector('.number')).fontWeight >= 600, c.textContent.includes('†'),"
                " getComputedStyle(c.querySelector('.number')).textDecorationLine === 'underline'])]))"
            )
            mean = fill(averages.models, [(number, lambda m: averages.get(m, attack, "1/255"))])
            last = fill(averages.models, [(number, lambda m: results.get(m, results.values("dataset")[-1], attack, "1/255"))])
            expected = {
                model: [[entry.best, entry.significant, entry.rank == "second"] for entry in (mean[model][0], last[model][0])]
                for model in averages.models
            }
            assert shown == expected
