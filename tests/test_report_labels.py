"""Labels of models, attacks and data sets: no part of a cell, whole in text, Markdown, LaTeX, JSON and file names."""

from __future__ import annotations

import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_run import make_run

from robustcal import bench, frame
from robustcal.api import plan_request
from robustcal.cli import main
from robustcal.records.store import Run
from robustcal.registry import split_label
from robustcal.report import markup
from robustcal.report.figures import file_name
from robustcal.report.labels import width_of
from robustcal.report.naming import is_maths, labelled, plain
from robustcal.report.report import gather, text_report, write_report
from robustcal.types import UserError

HOW = {"attacks": ["clean"], "datasets": ["digits"], "limit": 6, "device": "cpu", "workers": 1}
ODD = ["Ours (16 epochs)", "我们的方法", "نموذجنا", "$\\ell_\\infty$-UCAT & 50 % of <b>", "A_b#c~d^e\\f{g}", "naïve"]


# -- the grammar -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text, label, spec", [
    ("Ours=ucat:runs/x", "Ours", "ucat:runs/x"), ("pgd:steps=20", "", "pgd:steps=20"), ("clip", "", "clip"),
    ("a = b=tiny-clip:x=1", "a = b", "tiny-clip:x=1"), (" My  model\t2 = ucat ", "My model 2", "ucat"),
    ("$\\epsilon=1$=ucat:path=a=b", "$\\epsilon=1$", "ucat:path=a=b"),
])  # fmt: skip
def test_a_label_ends_at_the_last_equals_sign_before_the_first_colon(text, label, spec):
    assert split_label(text) == (label, spec)


@given(st.text(st.characters(exclude_characters=":,", exclude_categories=("C", "Z"))).filter(bool))
def test_any_label_comes_back(label):
    assert split_label(f"{label}=ucat:runs/x") == (label, "ucat:runs/x")


@pytest.mark.parametrize("models, message", [
    (["=clip"], "no label before the '='"), (["Ours="], "no spec behind the '='"), (["Ours=:x"], "no spec behind the '='"),
    (["A=tiny-clip", "B=tiny-clip"], "has two labels, 'A' and 'B'"), (["A=tiny-clip", "A=tiny-ucat"], "two models have the label 'A'"),
    (["Ours, too=clip"], "unknown model 'Ours'"), (["Ours=nothing"], "unknown model 'nothing'"),
])  # fmt: skip
def test_a_mistake_is_one_line(models, message, tmp_path, capsys):
    assert main(["bench", "--models", *models, "--datasets", "digits", "--limit", "4", "--dry-run", "--device", "cpu"]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and said.out == ""


def test_a_suite_may_have_labels(tmp_path):
    suite = tmp_path / "mine.toml"
    suite.write_text('models = ["Our model=tiny-ucat", "tiny-clip"]\nattacks = ["clean", "PGD-3=pgd:steps=3"]\ndatasets = ["digits"]\neps = ["1/255"]\n')
    request, _ = plan_request(None, None, None, None, suite, 4, None, ())
    assert request.sweeps[0].models == ("tiny-ucat", "tiny-clip") and request.sweeps[0].attacks == ("clean", "pgd:steps=3")
    assert list(request.labels) == ["model", "attack"] and [*request.labels["model"].values()] == ["Our model"]


# -- a run keeps them ------------------------------------------------------------------------------------------------
def test_the_latest_label_wins_and_cells_stay_what_they_are(tmp_path):
    def cells():
        return {cell.id: cell.identity for cell in Run.open(tmp_path / "run").cells()}

    bench(["tiny-clip"], out=tmp_path / "run", **HOW)
    bare = cells()
    for label in ("First", "Ours 漢字", "First"):
        found = bench([f"{label}=tiny-clip"], out=tmp_path / "run", **HOW)
        assert cells() == bare
        assert set(found.cells["model"]) == {label} == set(frame(tmp_path / "run")["model"])
        assert set(frame(tmp_path / "run", samples=True)["model"]) == {label}
        assert found.cells["model_spec"].str.startswith("tiny-clip").all()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("labels") / "run", attacks=("clean", "pgd"), datasets=("digits",), n=40)


@pytest.mark.parametrize("label", ODD)
def test_a_label_comes_out_right_everywhere(run, tmp_path, label):
    results = gather([run.path], resamples=20, rename=[f"ucat={label}"])
    shown = results.labels["model"]["ucat"]
    assert results.get(shown, "digits", "pgd", "1/255") is results.get("ucat", "digits", "pgd", "1/255")
    write_report(results, ["md", "tex", "csv", "json", "diagrams"], tmp_path, layout="main")
    assert shown in (tmp_path / "cells.csv").read_text() or f'"{shown}"' in (tmp_path / "cells.csv").read_text()
    assert shown in {cell["model"] for cell in json.loads((tmp_path / "report.json").read_text())["cells"]}
    assert "<b>" not in (tmp_path / "table.md").read_text()
    assert len({path.name for path in (tmp_path / "reliability").glob("*.png")}) == 3
    letters = [c for c in shown if unicodedata.category(c)[0] == "L" and ord(c) > 127]
    assert all(c in text_report(results) for c in letters)


def test_rows_line_up_whatever_the_script(run):
    wide, plain_ones = {"ucat": "我们的方法 é", "clip": "e\u0301te\u0301"}, {"ucat": "XXXXXXXXXX e", "clip": "ete"}
    assert [width_of(label) for label in wide.values()] == [len(label) for label in plain_ones.values()]
    one, other = (text_report(gather([run.path], resamples=20, rename=[f"{a}={b}" for a, b in names.items()]), width=200)
                  for names in (wide, plain_ones))  # fmt: skip
    for name, label in wide.items():
        one = one.replace(label, plain_ones[name])
    assert one == other and "XXXXXXXXXX e  " in other


def test_mathematics_passes_and_nothing_else_does():
    assert plain("$\\ell_\\infty$-PGD") == "ℓ∞-PGD" and plain("$\\alpha_{\\text{min}}$") == "αmin" and plain("5$") == "5$"
    assert plain("$\\Delta$UCAT$^{\\dagger}$") == "ΔUCAT†" and plain("$\\lambda$") == "λ"
    for evil in ("\\input{x}", "\\write18{ls}", "}\\end{tabular", "a%b", "\\csname", "{", "\\def\\a{b}", "a\\\\b"):
        assert not is_maths(evil) and plain(f"${evil}$") == f"${evil}$"
        tex = markup.label_tex(f"${evil}$")
        assert "\\$" in tex and not re.search(r"\\(input|write|end|csname|def)", tex)
    assert markup.label_tex("$\\ell_2$ & co_1") == "$\\ell_2$ \\& co\\_1"


def test_latex_prints_the_given_mathematics_and_the_norm(run):
    results = gather([run.path], resamples=20, rename=["ucat=$\\alpha$-UCAT 漢"])
    from robustcal.report.layouts import build

    tex = markup.latex(build("main", results)[0], results.tex)
    assert "$\\alpha$-UCAT 漢 &" in tex and "$\\ell_\\infty$ attacks" in tex and "[U+" not in tex
    assert "α-UCAT 漢" in markup.markdown(build("main", results)[0])


@given(st.lists(st.sampled_from(["Ours", "clip", "ucat #1", "$\\alpha$", "α", ""]), min_size=4, max_size=4))
def test_shown_names_are_distinct(labels):
    short = {"clip:x": "clip", "ucat:y #1": "ucat #1", "ucat:y #2": "ucat #2", "tecoa": "tecoa"}
    shown, tex = labelled(short, {name: label for name, label in zip(short, labels, strict=True) if label})
    assert len(set(shown.values())) == len(shown) and set(tex) <= set(shown.values())


# -- renaming for one report -----------------------------------------------------------------------------------------
def test_rename_takes_labels_and_whole_names_of_any_axis(run, capsys):
    words = ["--rename", "ucat=Ours: a=b", "--rename", "pgd=PGD-20", "--rename", "digits=Digits"]
    assert main(["report", str(run.path), *words]) == 0
    shown = capsys.readouterr().out
    assert "Ours: a=b" in shown and "PGD-20 " in shown and "Digits ↑" in shown and "ucat" not in shown


@pytest.mark.parametrize("order, message", [
    ("ucat", "write OLD=NEW"), ("nothing=x", "nothing is called so; there are: clip, tecoa, ucat"), ("ucat=", "no new name"), ("=x", "nothing"),
])  # fmt: skip
def test_a_wrong_rename_is_one_line(run, order, message):
    with pytest.raises(UserError, match=message):
        gather([run.path], resamples=5, rename=[order])


def test_two_things_cannot_get_one_name(run):
    with pytest.raises(UserError, match="'Ours' to two things"):
        gather([run.path], resamples=5, rename=["ucat=Ours", "clip=Ours"])


@given(st.text(min_size=1))
def test_file_names_hold_letters_of_any_script(text):
    name = file_name(text)
    assert name and "/" not in name and "\0" not in name and not name.startswith(".")
