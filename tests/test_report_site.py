"""The results page in a real browser: sorting, filtering, opening a cell, and names that attack the page."""

from __future__ import annotations

import html
import json
import re
import shutil
import socket

import pytest
from browser import CHROMIUM, Browser
from synthetic_run import make_run

from robustcal.records.store import Run
from robustcal.report.report import gather, write_report
from robustcal.report.site import embed, page

HOSTILE = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>",
    "<!--<script>", "\"'><svg onload=window.hacked=3>", "]]>", "{{data}}", "&lt;b&gt;", "‮ evil", "\u2028line",
)  # fmt: skip


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("site") / "run", attacks=("clean", "noise", "pgd", "cw"), n=60)
    return gather([run.path], resamples=200)


@pytest.fixture(scope="module")
def address(results):
    run = results.runs[0]
    return next(p for p in write_report(results, ["md", "html"], run.path / "report") if p.name == "index.html")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with Browser() as found:
        yield found


@pytest.fixture
def board(browser, address):
    browser.resize(1280, 900)
    browser.open(address)
    yield browser
    assert browser.complaints() == []


def column(browser, table, index):
    script = f"[...document.querySelectorAll('#{table} tbody tr')].map(r => r.children[{index}].querySelector('.number')?.textContent ?? r.children[{index}].textContent)"
    return browser.run(script)


# -- without a browser ----------------------------------------------------------------------------------------------


def test_embedded_data_cannot_end_its_element():
    text = embed({"name": list(HOSTILE)})
    assert "<" not in text and ">" not in text and "&" not in text and text.isascii()
    assert json.loads(text) == {"name": list(HOSTILE)}


def test_the_page_is_one_file_that_needs_nothing(results):
    text = page(results)
    assert "{{" not in text.replace('"{{', "") and len(re.findall("<script", text)) == 2
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", text) and "@import" not in text
    assert "default-src 'none'" in html.unescape(text) and "unsafe" not in text
    assert page(results) == text  # nothing of the moment in it


def test_no_path_of_the_machine_is_on_the_page(results):
    text = page(results)
    assert str(results.runs[0].path.parent) not in text and socket.gethostname() not in text


# -- in the browser -------------------------------------------------------------------------------------------------


def test_the_board_shows_the_numbers_of_the_frame(board, results):
    assert board.run("document.querySelectorAll('#board tbody tr').length") == 3
    board.run(
        "(board.attack = page.attacks.findIndex(a => a.label === 'pgd'), board.eps = '1/255', drawControls(), refresh())"
    )
    shown = dict(zip(column(board, "board", 0), column(board, "board", 3)))
    for model in ("clip", "tecoa", "ucat"):
        value = results.get(model, "digits", "pgd", "1/255").numbers.values["accuracy"]
        assert shown[model] == f"{100 * value:.1f}"


def test_clicking_a_heading_sorts_both_ways_and_says_so(board):
    def numbers():
        return [float(text) for text in column(board, "board", 3)]

    board.click("#board thead th:nth-child(4) button")
    assert numbers() == sorted(numbers(), reverse=True)
    assert board.run("document.querySelector('#board thead th:nth-child(4)').ariaSort") == "descending"
    board.click("#board thead th:nth-child(4) button")
    assert numbers() == sorted(numbers())
    assert board.run("document.querySelector('#board thead th:nth-child(4)').ariaSort") == "ascending"
    board.click("#board thead th:nth-child(1) button")
    assert column(board, "board", 0) == ["clip", "tecoa", "ucat"]


@pytest.mark.parametrize("width, mobile", [(1280, False), (390, True)])
def test_a_hint_in_a_search_field_fits_into_it(browser, address, width, mobile):
    browser.resize(width, 844, mobile=mobile)
    browser.open(address)
    spare = """[...document.querySelectorAll('input[type=search]')].map(field => {
      const pen = document.createElement('canvas').getContext('2d'), style = getComputedStyle(field);
      pen.font = style.font;
      return field.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) - pen.measureText(field.placeholder).width;
    })"""
    found = browser.run(spare)
    assert len(found) == 2 and min(found) >= 0, found
    browser.resize(1280, 900)


def test_pictures_of_samples_stand_in_their_cell(browser, results, tmp_path):
    cell = results.get("ucat", "digits", "pgd", "2/255")
    sample = cell.details.samples[0].id
    dot = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    (tmp_path / "index.html").write_text(page(results, (), {(cell.id, sample): dot}))
    browser.open(f"{(tmp_path / 'index.html').as_uri()}#cell={cell.id}")
    rows = "[...document.querySelectorAll('#cell .samples tbody tr')]"
    assert browser.run(f"{rows}.map(r => [r.querySelectorAll('img').length, r.querySelector('.id').textContent])")[0] == [1, sample]
    assert browser.run("document.querySelectorAll('#cell .samples img').length") == 1
    assert browser.run("document.querySelector('#cell .samples img').alt").startswith(sample)
    other = results.get("ucat", "digits", "cw", "2/255")
    browser.open(f"{(tmp_path / 'index.html').as_uri()}?2#cell={other.id}")
    assert f"--images {other.id}" in browser.run("document.querySelector('#cell').textContent")


def test_choosing_metric_attack_and_radius_changes_the_numbers(board, results):
    board.run(
        "(() => { const s = document.querySelector('#c-metric'); s.value = 'ece'; s.dispatchEvent(new Event('change')); })()"
    )
    board.run(
        "(() => { const s = document.querySelector('#c-attack'); s.value = [...s.options].find(o => o.text === 'cw').value; s.dispatchEvent(new Event('change')); })()"
    )
    board.run(
        "(() => { const s = document.querySelector('#c-eps'); s.value = '2/255'; s.dispatchEvent(new Event('change')); })()"
    )
    shown = dict(zip(column(board, "board", 0), column(board, "board", 2)))
    value = results.get("ucat", "digits", "cw", "2/255").numbers.values["ece"]
    assert shown["ucat"] == f"{100 * value:.1f}"
    assert "Calibration error" in board.run("document.querySelector('#board-note').textContent")


def test_filtering_models_and_cells_by_words(board):
    board.type("#c-model", "tec")
    assert column(board, "board", 0) == ["tecoa"]
    board.type("#c-model", "nothing like it")
    assert "No model matches" in board.run("document.querySelector('#board').textContent")
    board.type("#c-cells", "ucat letters pgd 2/255")
    assert board.run("document.querySelectorAll('#cells tbody tr').length") == 1
    board.type("#c-cells", "clean")
    assert set(column(board, "cells", 2)) == {"clean"}


def test_flagged_cells_can_be_picked_and_say_what_the_flag_means(board, results):
    board.run(
        "(() => { const s = document.querySelector('#c-flagged'); s.value = 'yes'; s.dispatchEvent(new Event('change')); })()"
    )
    flagged = sum(bool(cell.flags) for cell in results.cells)
    assert 0 < flagged == board.run("document.querySelectorAll('#cells tbody tr').length")
    board.click("#cells tbody tr:last-child button.open")
    text = board.run("document.querySelector('#cell').textContent")
    assert "zero-gradients" in text and "input gradient was zero everywhere" in text


def test_a_cell_opens_to_protocol_diagram_and_samples_and_closes(board, results):
    cell = results.get("ucat", "digits", "worst", "2/255")
    board.click(f"#board [data-cell='{cell.id}']")
    assert board.run("document.querySelector('#cell').open") is True
    assert board.run("location.hash") == f"#cell={cell.id}"
    text = board.run("document.querySelector('#cell').textContent")
    for piece in (
        "ucat · digits · worst 2/255",
        "return rule",
        "a photo of a {}",
        "32 pixels",
        f"--explain {cell.id}",
        "seed",
    ):
        assert piece in text
    ece = cell.numbers.values["ece"]
    assert f"ECE {100 * ece:.1f} %" in board.run("document.querySelectorAll('#cell svg')[1].textContent")
    assert board.run("document.querySelectorAll('#cell .samples tbody tr').length") == 12
    bars = board.run("[...document.querySelectorAll('#cell svg')[1].querySelectorAll('g > title')].length")
    assert bars == int((cell.details.bins.counts > 0).sum())
    board.click("#cell button.close")
    assert board.run("document.querySelector('#cell').open") is False and board.run("location.hash") == ""


def test_keys_walk_through_cells_and_escape_closes(board, results):
    board.run(f"location.hash = '#cell={results.cells[0].id}'")
    board.run("new Promise(done => setTimeout(done, 50))")
    board.key("ArrowRight", 39)
    board.run("new Promise(done => setTimeout(done, 50))")
    assert board.run("location.hash") == f"#cell={results.cells[1].id}"
    board.key("Escape", 27)
    assert board.run("document.querySelector('#cell').open") is False


def test_a_link_to_a_cell_opens_it(browser, address, results):
    browser.open(f"{address.resolve().as_uri()}?1#cell={results.cells[4].id}")
    assert browser.run("document.querySelector('#cell').open") is True
    browser.open(f"{address.resolve().as_uri()}?2#cell=no-such-cell")
    assert browser.run("document.querySelector('#cell').open") is False


def test_every_control_has_a_name_and_can_be_reached_by_keyboard(board):
    nameless = "[...document.querySelectorAll('button, select, input')].filter(e => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).length"
    assert board.run(nameless) == 0
    assert board.run("[...document.querySelectorAll('button, select, input')].every(e => e.tabIndex >= 0)")
    assert board.run("document.documentElement.lang") == "en"


def test_a_phone_scrolls_tables_and_never_the_page(browser, address, results):
    browser.resize(390, 844, mobile=True)
    browser.open(address)
    assert browser.run("document.documentElement.scrollWidth") == 390
    browser.run(f"openDialog({results.cells.index(results.get('ucat', 'digits', 'pgd', '1/255'))})")
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert browser.run("document.querySelector('#cell').scrollWidth <= 390")
    assert browser.run("document.querySelector('#cell').getBoundingClientRect().width") == 390
    small = "[...document.querySelectorAll('#cell .bar button')].filter(e => e.getBoundingClientRect().height < 40).length"
    assert browser.run(small) == 0
    assert browser.complaints() == []


def test_it_prints(board):
    paper = board.pdf()
    assert paper.startswith(b"%PDF") and len(paper) > 10_000


def test_hostile_names_stay_text(browser, tmp_path):
    run = make_run(tmp_path / "run", models=("clip", HOSTILE[0]), attacks=("clean", "pgd", "cw\"'><svg/onload=window.hacked=3>"), datasets=("digits", HOSTILE[1]),
                   radii=("1/255",), n=30, classes=len(HOSTILE), classnames=HOSTILE)  # fmt: skip
    results = gather([run.path], resamples=50)
    address = write_report(results, ["md", "tex", "html", "diagrams"], run.path / "report")[-1]
    browser.resize(1280, 900)
    browser.open(address)
    for at in range(len(results.cells)):
        browser.run(f"openDialog({at})")
        browser.run("new Promise(done => setTimeout(done, 5))")
    assert browser.run("typeof window.hacked") == "undefined"
    assert browser.run("document.scripts.length") == 2 and browser.run("document.images.length") == 0
    assert HOSTILE[0] in browser.run("document.querySelector('#board').textContent")
    shown = browser.run("document.querySelector('#cell .samples').textContent")
    assert any(name in shown for name in HOSTILE)
    assert browser.complaints() == []


def test_markup_that_slipped_in_could_do_nothing(browser, results, tmp_path):
    """The content security policy is the second lock: even with a hole, no foreign script runs and nothing is fetched."""
    holed = page(results).replace(
        "<header>",
        "<header><script>window.hacked = 1</script><img src=http://127.0.0.1:9/x onerror='window.hacked = 2'>",
    )
    path = tmp_path / "holed.html"
    path.write_text(holed)
    browser.open(path)
    assert browser.run("typeof window.hacked") == "undefined"
    assert browser.run("document.querySelectorAll('#board tbody tr').length") == 3  # the page itself still works


def test_pages_of_runs_without_attacks_or_with_one_cell(browser, tmp_path):
    run = make_run(tmp_path / "run", models=("clip",), attacks=("clean",), datasets=("digits",), n=5)
    address = write_report([run.path], ["html"], run.path / "report")[-1]
    browser.open(address)
    assert browser.run("document.querySelectorAll('#board tbody tr').length") == 1
    browser.run("openDialog(0)")
    assert browser.complaints() == []


def test_the_report_needs_no_torch(tmp_path):
    """A report is made where torch cannot even be imported."""
    import subprocess
    import sys

    run = make_run(tmp_path / "run", models=("clip",), datasets=("digits",), radii=("1/255",), n=10)
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from robustcal.report.report import write_report\n"
        f"print(len(write_report([{str(run.path)!r}], ['md', 'csv', 'html'], {str(tmp_path / 'out')!r})))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1500:]
    assert Run.open(run.path) and (tmp_path / "out" / "index.html").exists()
    shutil.rmtree(tmp_path / "out")
