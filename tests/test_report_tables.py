"""Tables: numbers, ranks, averages, renderings, comparison with published values."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess

import numpy as np
import pytest
from synthetic_run import make_run

from robustcal.metrics.accuracy import harmonic_mean, mean_harmonic
from robustcal.metrics.label_calibration import label_calibration
from robustcal.report import layouts, markup, standard, tables
from robustcal.report.averages import ranked
from robustcal.report.report import chosen_tables, gather, text_report, write_report
from robustcal.report.stats import Replicates
from robustcal.report.tables import Column, Entry, Row, Table
from robustcal.types import UserError

HOSTILE = "<script>alert(1)</script> | ` * _ $ % & # { } ~ ^ \\ \" ' é 漢 \n end"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "run"
    return make_run(path, attacks=("clean", "noise", "pgd", "cw", "transfer:from=tiny-clip"), n=80)


@pytest.fixture(scope="module")
def results(run):
    return gather([run.path], resamples=300)


def table(**changes):
    entries = (Entry(0.5, 0.4, 0.6, ("few-classes",), "best"), Entry(None), Entry(-0.0123, signed=True))
    columns = (Column("Acc", "digits", better="higher", interval=True), Column("ECE", "digits"), Column("gap"))
    row = Row(("pgd", HOSTILE), entries)
    return Table(**{"name": "t", "caption": f"A {HOSTILE} caption", "labels": ("Attack", "Model"), "columns": columns,
                    "rows": (row, Row(("pgd", "clip"), (Entry(0.25), Entry(0.1, rank="second"), Entry(0.0, signed=True)))),
                    "flags": {"few-classes": "means & does <this>"}, **changes})  # fmt: skip


# -- numbers and renderings -----------------------------------------------------------------------------------------


def test_percent_is_made_here_with_two_decimals():
    assert tables.number(0.12345, Column("a")) == "12.35" or tables.number(0.12345, Column("a")) == "12.34"
    assert tables.number(1.23456, Column("a", percent=False, digits=3)) == "1.235"
    assert tables.number(-1e-9, Column("a")) == "0.00"
    assert tables.number(0.02, Column("a"), signed=True) == "+2.00"
    assert tables.number(-0.02, Column("a"), signed=True) == "-2.00"


def test_text_marks_best_second_and_flags_and_repeats_labels_when_broken():
    shown = tables.text(table())
    assert "50.00 [40.00, 60.00]^a*" in shown and "10.00_" in shown and "-1.23" in shown
    assert "^a few-classes: means & does <this>" in shown
    narrow = tables.text(table(), 70)
    assert narrow.count("clip") == 3 and max(map(len, narrow.splitlines()[3:-1])) < 140


def test_markdown_carries_no_markup_from_outside():
    shown = markup.markdown(table())
    assert "<script" not in shown and "**50.00**" in shown and "<u>10.00</u>" in shown
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    cells = [len(line.replace("\\|", "").split("|")) for line in rows]
    assert len(rows) == 4 and set(cells) == {7}  # a bar in a name does not make a column


def test_csv_keeps_full_precision_and_empty_places():
    rows = list(csv.reader(io.StringIO(tables.comma_separated(table()))))
    assert rows[0] == ["Attack", "Model", "digits Acc", "digits Acc lo", "digits Acc hi", "digits Acc flags", "digits ECE", "gap"]
    assert rows[1][2:] == ["0.5", "0.4", "0.6", "few-classes", "", "-0.0123"]


def test_latex_uses_booktabs_bold_underline_and_escapes():
    shown = markup.latex(table())
    for piece in (
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"\textbf{50.00}",
        r"\underline{10.00}",
        r"\textsuperscript{a}",
        "$-1.23$",
    ):
        assert piece in shown
    assert r"\cmidrule(lr){3-4}" in shown
    assert r"\$ \% \& \# \{ \} \textasciitilde{} \textasciicircum{} \textbackslash{}" in shown


def engine():
    return next(filter(None, map(shutil.which, ("tectonic", "pdflatex", "lualatex", "xelatex"))), None)


@pytest.mark.skipif(engine() is None, reason="no LaTeX engine is installed")
def test_latex_compiles(tmp_path, results):
    write_report(results, ["tex"], tmp_path, layout="all")
    (tmp_path / "hostile.tex").write_text(markup.latex(table()))
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\\input{table}\\input{hostile}\\end{document}"
    )
    command = (
        [engine(), "paper.tex"]
        if "tectonic" in engine()
        else [engine(), "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    )
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000


# -- layouts --------------------------------------------------------------------------------------------------------


def test_main_has_datasets_average_and_h(results):
    first = layouts.build("main", results)[0]
    assert [c.title for c in first.columns] == ["digits", "letters", "Average", "H"]
    numbers = first.numbers()
    clean, pgd = numbers[("clean", "ucat")], numbers[("pgd", "ucat")]
    mean = np.mean([pgd[("", name)].value for name in ("digits", "letters")])
    assert pgd[("", "Average")].value == pytest.approx(mean)
    a, b = clean[("", "Average")].value, pgd[("", "Average")].value
    assert pgd[("", "H")].value == pytest.approx(2 * a * b / (a + b))
    assert clean[("", "H")].empty and pgd[("", "H")].lo < pgd[("", "H")].value < pgd[("", "H")].hi
    assert pgd[("", "Average")].best and numbers[("pgd", "tecoa")][("", "Average")].rank == "second"


def test_h_on_every_dataset_and_their_mean(results):
    first = layouts.build("harmonic", results)[0]
    assert [c.title for c in first.columns] == ["digits", "letters", "Average", "H"]
    row, main = (table.numbers()[("pgd", "ucat")] for table in (first, layouts.build("main", results)[0]))
    clean, robust = (
        [results.get("ucat", d, *where).numbers.values["accuracy"] for d in ("digits", "letters")]
        for where in (("clean", "0"), ("pgd", "1/255"))
    )
    assert [row[("", d)].value for d in ("digits", "letters")] == pytest.approx(harmonic_mean(clean, robust).tolist())
    assert row[("", "Average")].value == pytest.approx(mean_harmonic(clean, robust))
    assert row[("", "H")].value == main[("", "H")].value and ("clean", "ucat") not in first.numbers()


def test_multi_label_tables_have_h_and_class_wise_calibration(tmp_path):
    run = make_run(tmp_path / "run", models=("clip", "ucat"), attacks=("clean", "pgd"), datasets=("coco",), radii=("1/255",), n=40, multi=True)
    results = gather([run.path], resamples=20)
    (found,) = layouts.build("coco", results)
    row, cells = found.numbers()[("ucat",)], [results.get("ucat", "coco", *where) for where in (("clean", "0"), ("pgd", "1/255"))]
    f1, attacked = (cell.numbers.values["f1_at_3"] for cell in cells)
    assert row[("1/255", "H(F1@3)")].value == pytest.approx(harmonic_mean(f1, attacked)) and ("clean", "H(F1@3)") not in row
    assert row[("clean", "ECE class")].value == label_calibration(run.read(cells[0].id), reading="centred")["label_ece"]
    assert "mean logit" in found.caption and "H(F1@3): harmonic mean" in found.caption


def test_captions_state_the_protocol(results):
    for name in ("main", "calibration", "ablation", "by-eps", "transfer"):
        for found in layouts.build(name, results):
            for piece in (
                "/255",
                "32 pixels",
                "pgd" if name != "transfer" else "transfer",
                "iterate is scored",
                "fp32",
                "n = 80",
                "seed 0",
                "[0, 1]",
            ):
                assert piece in found.caption, (name, piece)


def test_every_layout_renders_every_way(results, tmp_path):
    for name in layouts.LAYOUTS:
        for found in layouts.build(name, results):
            assert (
                tables.text(found, 100)
                and markup.markdown(found)
                and markup.latex(found)
                and tables.comma_separated(found)
            )
    paths = write_report(results, ["csv", "md", "tex"], tmp_path, layout="all")
    assert {"table.md", "table.tex", "cells.csv"} <= {path.name for path in paths}
    with pytest.raises(UserError, match="layout 'coco' is empty: Cells of a multi-label data set"):
        text_report(results, layout="coco")


def test_transfer_rows_are_sources_and_columns_targets(results):
    found = layouts.build("transfer", results)[0]
    assert found.rows[0].labels == ("tiny-clip",) and [c.title for c in found.columns] == ["clip", "tecoa", "ucat"]


@pytest.mark.parametrize("value, signed, shown", [
    (-0.004, False, "-0.004"), (-0.0004, False, "0.000"), (0.0004, True, "+0.000"), (-0.0004, True, "+0.000"), (-0.0073, True, "-0.007"),
    (1.5, True, "+1.500"),
])  # fmt: skip
def test_a_small_negative_number_keeps_its_sign(value, signed, shown):
    assert tables.number(value, Column("Δ entropy", percent=False, digits=3), signed) == shown


def test_a_run_of_clean_images_alone_has_a_table(tmp_path):
    clean = gather([make_run(tmp_path / "run", attacks=("clean",), n=40).path], resamples=50)
    (found,) = standard.by_eps(clean)
    assert [column.title for column in found.columns] == ["clean", "clean"]
    assert found.rows and all(0 <= entry.value <= 1 for row in found.rows for entry in row.entries)


def test_by_eps_runs_from_clean_to_the_largest_radius(results):
    (found,) = layouts.build("by-eps", results)
    assert [c.title for c in found.columns] == ["clean", "1/255", "2/255"] * 2
    values = [e.value for e in found.rows[[r.labels for r in found.rows].index(("pgd", "clip"))].entries]
    assert values[0] > values[1] > values[2] and values[3] < values[4] < values[5]


def test_an_attack_at_radius_0_is_not_called_clean(tmp_path):
    zero = gather([make_run(tmp_path / "run", attacks=("clean", "pgd"), radii=("0", "2/255"), n=40).path], resamples=50)
    (found,) = standard.by_eps(zero)
    assert [column.title for column in found.columns] == ["clean", "0", "2/255"] * 2
    assert all(entry.value is not None for row in found.rows for entry in row.entries)


def test_an_average_is_over_what_all_models_have(tmp_path):
    one = make_run(tmp_path / "one", models=("clip", "ucat"), datasets=("digits", "letters"), n=30)
    for cell in one.cells():
        if (cell.model, cell.dataset) == ("ucat", "letters"):
            shutil.rmtree(one.path / "records" / cell.id)
    table = layouts.build("main", gather([one.path], resamples=50))[0]
    for model in ("clip", "ucat"):
        row = table.numbers()[("pgd", model)]
        assert row[("", "Average")].value == row[("", "digits")].value and row[("", "letters")].empty == (model == "ucat")
    assert "Average: over the data sets that all shown models have: digits." in table.caption
    assert "Not in the run: ucat on letters." in table.caption


def test_the_best_is_marked_and_what_chance_explains_has_no_dagger():
    def numbers(value, spread, seed):
        draws = value + spread * np.random.default_rng(seed).standard_normal(500)
        return Replicates({"accuracy": value}, {"accuracy": draws}, {})

    same = {"a": numbers(0.5, 0.0, 0), "b": numbers(0.5, 0.0, 0), "c": numbers(0.4, 0.0, 0)}
    assert ranked(same, "accuracy") == {"a": "best", "b": "best"}
    assert ranked({key: same[key] for key in "ab"}, "accuracy") == {}
    close = {"a": numbers(0.50, 0.1, 0), "b": numbers(0.51, 0.1, 1)}
    assert ranked(close, "accuracy") == {"b": "best", "a": "second"}
    apart = {"a": numbers(0.50, 0.01, 0), "b": numbers(0.81, 0.01, 1), "c": numbers(0.2, 0.01, 2)}
    assert ranked(apart, "accuracy") == {"b": "best significant", "a": "second"}
    assert ranked({"a": numbers(0.5, 0.1, 0)}, "accuracy") == {}


def test_lower_is_better_for_ece(results):
    found = next(t for t in layouts.build("calibration", results) if t.name.startswith("ece"))
    column = [(row.labels, row.entries[-1]) for row in found.rows if row.labels[0] == "pgd"]
    second = [entry.value for _, entry in column if entry.rank == "second"]
    best = min(entry.value for _, entry in column)
    assert all(value > best for value in second)


def test_unknown_names_are_one_line(results, tmp_path):
    with pytest.raises(UserError, match="unknown layout 'x'; there are: main"):
        layouts.build("x", results)
    with pytest.raises(UserError, match="unknown format 'docx'; there are: text, md"):
        write_report(results, ["docx"], tmp_path)
    with pytest.raises(UserError, match="unknown comparison 'blog'"):
        chosen_tables(results, "main", "blog")
    with pytest.raises(UserError, match="no published table"):
        chosen_tables(results, "transfer", "ucat")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_report(results, ["md"], tmp_path / "file" / "below")


def test_labels_that_leave_no_room_stand_above_their_rows():
    columns = tuple(Column(title, group) for title, group in (("clean", ""), ("ECE", "a heading wider than its column"), ("x", "b")))
    labels = [(f"attack {a}", f"radius {r}", f"a long model {m}") for a in (1, 2) for r in (1, 2) for m in (1, 2)]
    rows = [Row(names, tuple(Entry((i + j) / 100, flags=("odd", "rare")[: i % 3]) for j in range(3))) for i, names in enumerate(labels)]
    made = Table("t", "caption", ("Attack", "Radius", "Model"), columns, tuple(rows), {"odd": "a long story " * 9, "rare": "one more"})
    wide, narrow = tables.text(made), tables.text(made, 60)
    assert max(map(len, wide.splitlines())) > 60 >= max(map(len, narrow.splitlines()))
    assert narrow.count("Attack attack 1\n") == 1 and "a heading wider than its column" in narrow and "Radius radius" not in narrow
    assert tables.text(made, 50).count("Radius radius 2\n") == 2
    numbers = [word for line in wide.splitlines() for word in line.split() if word[0].isdigit() and "." in word]
    found = [word for line in narrow.splitlines() for word in line.split() if word[0].isdigit() and "." in word]
    assert sorted(numbers) == sorted(found) and len(numbers) == 24  # marks lead to the same footnotes
    assert " ".join(narrow.split()).endswith(" ".join(wide[wide.index("^a odd") :].split()))
