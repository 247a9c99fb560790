"""What the page says beside its numbers: title, date, versions, cards of the models, layouts as sections, what `worst` is."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from browser import CHROMIUM, Browser
from cells import cell as made_cell
from synthetic_run import make_run

from robustcal.cli.parser import parser
from robustcal.registry import models
from robustcal.report import layouts, sections
from robustcal.report.headline import made
from robustcal.report.modelcards import UNKNOWN, claims_of, facts_of, model_cards
from robustcal.report.report import gather, tables_by_layout, write_report
from robustcal.report.sections import ABOUT, about_attack
from robustcal.report.site import page, payload
from robustcal.report.tables import interval, number
from robustcal.report.verb import report
from robustcal.report.versus import versus_tables

DAY = 1_800_000_000  # 2027-01-15, UTC


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    found = make_run(tmp_path_factory.mktemp("parts") / "run", models=("tiny-clip", "ucat"), attacks=("clean", "pgd", "cw"), n=40)
    for path in (found.path / "records").rglob("*.parquet"):
        os.utime(path, (DAY, DAY))
    return found


@pytest.fixture(scope="module")
def results(run):
    return gather([run.path], resamples=50, versus="tiny-clip", title="A <b>title</b> of $mine$")


def test_the_title_is_text_and_the_command_line_takes_one(run, results, tmp_path):
    text = page(results)
    assert text.count("A &lt;b&gt;title&lt;/b&gt; of $mine$") == 2 and "<b>title" not in text
    assert "robustcal results" in page(gather([run.path], resamples=5))
    assert parser().parse_args(["report", "RUN", "--title", "Mine"]).title == "Mine"
    written = report(run.path, formats="html", out=tmp_path, title="Mine").paths[-1].read_text()
    assert "<title>Mine</title>" in written and "<h1>Mine</h1>" in written


def test_date_and_versions_are_those_of_the_records(results):
    assert made(results) == "Records of 2027-01-15 · robustcal 0.1.0 · torch 2.15.0"


def test_a_card_tells_what_run_and_registry_know_and_says_what_nobody_stated(results):
    known, other = model_cards(results)
    card = models.cards()["tiny-clip"]
    assert known["facts"]["what"] == card["title"] and known["facts"]["clean source data"] == card["source_data"]
    assert "clean accuracy 84.8 %" in known["facts"]["claimed"]
    assert known["facts"]["weights hash"] == next(c for c in results.cells if c.model == "tiny-clip").meta.identity.weights
    assert other["facts"]["licence"] == UNKNOWN
    trained = replace(made_cell("pgd", "1/255", model="mine"), training={"method": "ucat", "source_data": "cifar10", "seed": 3})
    facts = facts_of(trained)
    assert (facts["method"], facts["clean source data"], facts["training seed"]) == ("ucat", "cifar10", "3")
    assert {facts_of(replace(trained, training=None))[name] for name in ("method", "clean source data", "licence", "claimed")} == {UNKNOWN}


@pytest.mark.parametrize("name", sorted(models.cards()))
def test_every_card_becomes_text(name):
    facts = facts_of(replace(made_cell("clean", "0"), identity=replace(made_cell("clean", "0").identity, model=name)))
    assert facts and all(isinstance(text, str) and text and "{" not in text for text in facts.values())
    assert all("%" in line or line.startswith(("what ", "source ")) for line in claims_of(models.cards()[name]))


def test_a_section_shows_the_numbers_of_its_layout(results):
    found = {section["name"]: section for section in payload_sections(results)}
    for drawn, table in zip(found["versus"]["tables"], versus_tables(results), strict=True):
        assert [row["labels"] for row in drawn["rows"]] == [row.labels for row in table.rows]
        for row, one in zip(table.rows, drawn["rows"], strict=True):
            expected = [
                [number(e.value, c, e.signed), interval(e, c), e.rank, list(e.flags)] if not e.empty else []
                for e, c in zip(row.entries, table.columns, strict=True)
            ]
            assert one["entries"] == expected


def payload_sections(results, **asked):
    return sections.sections(results, asked)


def test_slow_layouts_are_told_of_and_made_where_asked_for(results):
    found = {section["name"]: section for section in payload_sections(results)}
    assert found["conformal"]["command"] == "robustcal report RUN --layout conformal --format html" and "tables" not in found["conformal"]
    asked = {section["name"]: section for section in payload_sections(results, **tables_by_layout(results, "conformal"))}
    assert asked["conformal"]["tables"] and "command" not in asked["conformal"]
    for name in ("conformal", "premise", "calibrators"):
        assert {*parser().parse_args(found[name]["command"].split()[1:]).format} == {"html"}


def test_sections_are_layouts_and_a_run_of_clean_cells_has_no_slow_ones(tmp_path):
    assert set(ABOUT) - {"compare"} == set(layouts.LAYOUTS)
    assert all(title and about.endswith((".", "?")) for title, about in ABOUT.values())
    clean = gather([make_run(tmp_path / "run", attacks=("clean",), datasets=("digits",), n=10)], resamples=5)
    assert not {section["name"] for section in payload_sections(clean)} & {"conformal", "premise", "calibrators", "versus"}


def test_the_worst_cases_say_what_they_are(results):
    about = {one["label"]: one["about"] for one in payload(results, (), {})["attacks"]}
    assert about["pgd"] == "" and "most harm, of cw, pgd" in about["worst"]
    worst = next(cell.meta for cell in results.cells if cell.kind == "worst")
    gap = replace(worst, identity=replace(worst.identity, attack="worst-calibration"))
    assert "mean gap" in about_attack(gap, {})


def test_sections_in_the_browser(results, tmp_path):
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    address = write_report(results, ["html"], tmp_path)[-1]
    with Browser() as browser:
        browser.open(address)
        assert browser.run("document.querySelector('h1').textContent") == "A <b>title</b> of $mine$"
        assert browser.run("document.querySelectorAll('#models article').length") == 2
        rows = sum(len(table.rows) for table in versus_tables(results))
        assert browser.run("document.querySelectorAll('#layout-versus tbody tr').length") == rows
        browser.click("#contents a[href='#layout-conformal']")
        assert browser.run("document.querySelector('#layout-conformal').open")
        assert "--layout conformal" in browser.run("document.querySelector('#layout-conformal').textContent")
        # an attack that has no accuracy is not shown as nothing
        browser.run("(page.cells.filter(c => c.attack === 1).forEach(c => delete c.v.accuracy), board.attack = 1, drawControls(), refresh())")
        assert browser.run("board.metric") == "ece" and browser.run("document.querySelector('#c-metric').value") == "ece"
        assert browser.complaints() == []
