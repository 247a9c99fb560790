"""The site from submissions of which one has another protocol and one is hostile, in a real browser too."""

from __future__ import annotations

import html
import json
import re
import shlex
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from submissions import forged, submission

from robustcal.cli import main, parser
from robustcal.leaderboard import verb
from robustcal.leaderboard.published import published
from robustcal.leaderboard.reading import read_submission
from robustcal.leaderboard.verb import leaderboard
from robustcal.records.signoff import SignOff, write_signoff

EVIL = "</td><script>window.hacked=1</script><img src=x onerror='window.hacked=2'>"


def signoff(run: str, **given) -> SignOff:
    one = SignOff(
        run=run, cells=(2, 2), samples=64, agree=64, float_only=1, disagree=(), refuted=(), unchecked=(), population=400,
        at_least=0.954, confidence=0.95, seed=0, table=True, command="robustcal verify RUN", by="Ada", date=str(date(2026, 1, 2)),
        versions={},
    )  # fmt: skip
    return replace(one, **given)


def named(name, model="ucat"):
    """A forger's card: every text is an attack on the page."""

    def change(members):
        keys = ("name", "authors", "paper", "training_data", "licence")
        lines = [f"submitter = {json.dumps(name)}", "[[model]]", f'model = "{model}"', *(f"{key} = {json.dumps(name)}" for key in keys)]
        members["card.toml"] = "\n".join(lines).encode()

    return change


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three submissions: two of one protocol, the second by a hostile hand; one of another protocol; and one that is refused."""
    folder = tmp_path_factory.mktemp("files")
    attacks = {"attacks": ("clean", "pgd", "cw"), "radii": ("1/255", "2/255")}
    one = submission(folder, "one", models=("clip", "tecoa"), **attacks)
    plain = submission(folder, "plain", models=("ucat",), **attacks)
    other = submission(folder, "other", models=("other",), attacks=("clean", "pgd:steps=100"), n=30)
    evil = forged(plain, folder / "evil.zip", named(EVIL))
    long = submission(folder, "long", models=("ucat:" + "w" * 900,), datasets=("set:" + "x" * 300,), attacks=("clean", "pgd:a=" + "y" * 900))
    long = forged(long, folder / "long.zip", named("W" * 300, "ucat:w"))
    broken = folder / "broken.zip"
    broken.write_bytes(plain.read_bytes()[:-400])
    checked = folder / "one.json"
    write_signoff(checked, signoff(read_submission(one, folder / "read", apart=False).records))
    return {"one": one, "other": other, "evil": evil, "long": long, "broken": broken, "checked": checked}


@pytest.fixture(scope="module")
def site(files, tmp_path_factory):
    made = leaderboard([*files.values()], tmp_path_factory.mktemp("site"), tables="ucat", resamples=100, apart=False)
    assert len(made.refused) == 1 and "'broken.zip' is refused" in made.refused[0]
    return made.index


def tables(text):
    return re.findall(r'<section id="t\d+" class="board".*?</section>', text, re.DOTALL)


def heads(table):
    return [re.sub("<.*?>", "", head) for head in re.findall(r'<th colspan="2" scope="colgroup">(.*?)</th>', table)]


def test_one_table_for_each_data_set_and_threat_model(site):
    found = [re.search("<h2>(.*?)</h2>", table)[1] for table in tables(site.read_text())]
    assert found[:2] == ["digits, ℓ∞ 1/255", "digits, ℓ∞ 2/255"] and "Cifar10, ℓ∞ 1/255" in found


def test_another_protocol_never_shares_a_column_and_what_differs_is_said(site):
    table = tables(site.read_text())[0]
    found = heads(table)
    assert [head.split("unlike")[0] for head in found] == ["A clean", "B clean", "C worst", "D pgd", "E cw", "F pgd:steps=100"]
    assert "unlike A: images, samples" in found[1] and "unlike D: images, samples, steps" in found[5]
    rows = re.findall(r'<tr data-checked="\w+">.*?</tr>', table)
    filled = {re.search("<a href.*?>(.*?)</a>", row)[1]: [cell != "<td></td>" for cell in re.findall("<td.*?</td>", row)] for row in rows}
    assert filled["clip"] == filled["tecoa"] == [True] * 2 + [False] * 2 + [True] * 6 + [False] * 2
    assert filled["other"] == [not shown for shown in filled["clip"]]


def test_numbers_are_those_of_the_records(site, files, tmp_path):
    records = read_submission(files["one"], tmp_path / "run", apart=False).run
    held = {cell.model: records.read(cell.id)["correct"].mean() for cell in records.cells() if cell.kind == "clean"}
    for model, value in held.items():
        row = re.search(rf'<tr data-checked="\w+"><th scope="row"><a[^>]*>{model}</a>.*?</tr>', tables(site.read_text())[0])[0]
        assert re.search("<b>(.*?)</b>", row)[1] == f"{100 * value:.1f}"


def test_badges_of_those_who_run_the_board_and_of_those_who_submit(site, files, tmp_path):
    text = site.read_text()
    assert text.count("checked: 64 of 64, by Ada, 2026-01-02") == 4 and "says of itself: " not in text  # 2 models, 2 tables
    packed = forged(files["one"], tmp_path / "own.zip", lambda members: members.update({"signoff.json": files["checked"].read_bytes()}))
    own = leaderboard([packed], tmp_path / "own", resamples=20, apart=False).index.read_text()
    assert own.count("says of itself: checked: 64 of 64, by Ada") == 4 and 'data-checked="yes"' not in own


@pytest.mark.parametrize(
    "given, state",
    [
        ({"agree": 63, "disagree": ("x",)}, "refuted"), ({"refuted": ("its table",)}, "refuted"),
        ({"unchecked": ("no weights",)}, "part"), ({}, "yes"),
    ],
)  # fmt: skip
def test_what_a_check_found_is_shown(given, state, files, tmp_path):
    found = read_submission(files["other"], tmp_path / "run", apart=False)
    write_signoff(tmp_path / "s.json", signoff(found.records, **given))
    made = leaderboard([files["other"], tmp_path / "s.json"], tmp_path / "site", resamples=20, apart=False)
    text = made.index.read_text()
    assert set(re.findall(r'<tr data-checked="(\w+)"', text)) == {state}
    page = next((tmp_path / "site" / "models").iterdir()).read_text()
    assert all(html.escape(line) in page for lines in given.values() if isinstance(lines, tuple) for line in lines)


def test_a_sign_off_of_other_records_is_no_badge(files, tmp_path):
    write_signoff(tmp_path / "s.json", signoff("sha256:" + "0" * 64))
    made = leaderboard([files["other"], tmp_path / "s.json"], tmp_path / "site", resamples=20, apart=False)
    assert "checked: 64" not in made.index.read_text()
    (tmp_path / "s.json").write_text("{}")
    assert "no sign-off" in leaderboard([files["other"], tmp_path / "s.json"], tmp_path / "site", resamples=20, apart=False).refused[0]


def test_published_rows_are_marked_and_have_no_rank(site):
    rows, numbers = published("ucat")
    table = next(table for table in tables(site.read_text()) if "<h2>Cifar10, " in table)
    found = re.findall(r'<tr data-checked="published">.*?</tr>', table)
    here = {one.key for one in numbers if one.dataset == "Cifar10"}
    assert len(found) == len(here) and all("published, unverified" in row and "<i>" not in row for row in found)
    value = next(one.value for one in numbers if one.dataset == "Cifar10" and one.key.startswith("published-ucat-16-ucat") and one.radius == 0)
    assert any(f"<b>{100 * value:.1f}</b>" in row for row in found if ">UCAT<" in row)


def test_every_page_may_run_its_own_script_only_and_fetches_nothing(site):
    for page in [site, *(site.parent / "models").iterdir()]:
        text = page.read_text()
        policy = html.unescape(re.search('Content-Security-Policy" content="(.*?)"', text)[1])
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy
        assert not re.search(r"<(link|img|iframe|object|embed|base)\b", text) and EVIL not in text
        assert len(re.findall("<script", text)) == (page == site)


def test_pages_of_models_that_are_gone_are_removed(files, tmp_path):
    leaderboard([files["one"]], tmp_path, resamples=20, apart=False)
    (tmp_path / "models" / "mine.html").write_text("kept")
    leaderboard([files["other"]], tmp_path, resamples=20, apart=False)
    assert len([*(tmp_path / "models").iterdir()]) == 2 and (tmp_path / "models" / "mine.html").exists()


def test_the_command_shows_the_others_and_says_what_it_refused(files, tmp_path, capsys):
    words = ["leaderboard", str(files["one"]), str(files["broken"]), str(files["one"]), "--out", str(tmp_path / "site")]
    assert main(words) == 2
    said = capsys.readouterr()
    assert "2 rows" in said.out and said.err.count("\n") == 2 and "once more" in said.err and "broken.zip" in said.err
    assert main(["leaderboard", str(files["broken"]), "--out", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()
    assert main(["leaderboard", "--out", str(tmp_path / "none"), "--published", "nobody"]) == 2
    assert "there are: fare, tecoa, ucat" in capsys.readouterr().err


def test_the_same_files_make_the_same_pages(files, tmp_path):
    made = [leaderboard([files["one"]], tmp_path / name, resamples=50, apart=False).index for name in ("a", "b")]
    assert made[0].read_bytes() == made[1].read_bytes()


def test_several_labels_an_image_have_their_own_numbers(tmp_path):
    path = submission(tmp_path, "multi", models=("a", "b"), multi=True)
    made = leaderboard([path], tmp_path / "site", resamples=20, apart=False)
    assert made.refused == () and heads(tables(made.index.read_text())[0]) == ["A clean", "B pgd"]
    assert re.findall(r"<button[^>]*>(.*?)</button>", made.index.read_text())[:2] == ["mAP %", "ECE class %"]


def test_attacks_models_and_sets_that_are_not_here_are_shown(tmp_path):
    path = submission(tmp_path, "own", attacks=("clean", "mine:share=2"), models=("strange:thing",), datasets=("nowhere:x",))
    assert leaderboard([path], tmp_path / "site", resamples=20, apart=False).refused == ()


def test_what_no_check_foresaw_costs_one_submission(files, tmp_path, monkeypatch):
    real = verb.entry_of

    def fails(submission, *rest):
        if submission.file == "other.zip":
            raise IndexError("list index out of range")
        return real(submission, *rest)

    monkeypatch.setattr(verb, "entry_of", fails)
    made = leaderboard([files["other"], files["one"]], tmp_path / "site", resamples=20, apart=False)
    assert made.models == 2 and made.refused == (
        "submission 'other.zip' is refused: its numbers cannot be computed (IndexError: list index out of range)",
    )


# -- in the browser --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with Browser() as found:
        yield found


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_and_nothing_hostile_runs(browser, site, width):
    browser.resize(width, 844, mobile=width < 500)
    for page in [site, *sorted((site.parent / "models").iterdir())]:
        browser.open(page)
        assert browser.run("document.documentElement.scrollWidth") == width
        assert browser.run("typeof window.hacked") == "undefined" and browser.run("document.images.length") == 0
        assert browser.complaints() == []
    browser.open(site)
    assert EVIL in browser.run("document.querySelector('#t0').textContent")


def test_filters_and_sorting(browser, site):
    browser.resize(1280, 900)
    browser.open(site)
    visible = "[...document.querySelectorAll('section.board')].filter(s => !s.hidden).length"
    every = browser.run(visible)
    choose = "(([id, v]) => {{ const s = document.getElementById(id); s.value = v; s.dispatchEvent(new Event('change')); }})({})"
    browser.run(choose.format(json.dumps(["c-set", "digits"])))
    assert browser.run(visible) == 2 < every
    browser.run(choose.format(json.dumps(["c-threat", "ℓ∞ 2/255"])))
    assert browser.run(visible) == 1
    rows = "[...document.querySelectorAll('#t1 tr[data-checked]')].filter(r => !r.hidden).map(r => r.cells[0].querySelector('a').textContent)"
    browser.run(choose.format(json.dumps(["c-state", "yes part"])))
    assert sorted(browser.run(rows)) == ["clip", "tecoa"]
    browser.type("#c-words", "tec")
    assert browser.run(rows) == ["tecoa"]
    browser.type("#c-words", "nothing is called so")
    assert browser.run(visible) == 0 and browser.run("!document.getElementById('none').hidden")
    browser.open(site)
    numbers = "[...document.querySelectorAll('#t0 tr[data-checked]')].map(r => r.cells[5].dataset.v).filter(v => v).map(Number)"
    browser.click("#t0 thead tr:nth-child(2) th:nth-child(5) button")
    assert browser.run(numbers) == sorted(browser.run(numbers), reverse=True)
    browser.click("#t0 thead tr:nth-child(2) th:nth-child(5) button")
    assert browser.run(numbers) == sorted(browser.run(numbers))
    assert browser.run("document.querySelector('#t0 tbody').lastElementChild.cells[5].textContent") == ""  # what has no number


def test_diagrams_show_the_bins(browser, site):
    browser.open(min((site.parent / "models").iterdir()))
    assert browser.run("document.querySelectorAll('svg[role=img]').length") == 3  # clean and two radii
    assert "ECE" in browser.run("document.querySelector('figcaption').textContent")


def test_it_prints(browser, site):
    browser.open(site)
    paper = browser.pdf()
    assert paper.startswith(b"%PDF") and len(paper) > 10_000


# -- the workflow of the documentation -------------------------------------------------------------------------------
WORKFLOW = Path(__file__).parents[1] / "docs" / "examples" / "leaderboard.yml"


def test_the_workflow_parses_and_its_commands_exist():
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load(WORKFLOW.read_text())
    assert set(found["jobs"]) == {"check", "site"} and "pull_request" in found[True]  # yaml reads "on" as true
    steps = [step for job in found["jobs"].values() for step in job["steps"]]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    lines = [line.strip() for step in steps for line in step.get("run", "").splitlines() if line.strip().startswith("robustcal ")]
    used = {parser().parse_args(shlex.split(line.partition(" ||")[0])[1:]).command for line in lines}
    assert used == {"unpack", "verify", "leaderboard"}


def test_the_job_that_reads_strangers_may_write_nothing():
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load(WORKFLOW.read_text())
    assert found["permissions"] == {"contents": "read"} and "permissions" not in found["jobs"]["check"]
    scripts = [step.get("run", "") for step in found["jobs"]["check"]["steps"]]
    assert not any("${{" in script for script in scripts), "a file's name must not become a part of a script"
