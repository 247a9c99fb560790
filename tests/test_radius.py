"""A radius is written over 255 wherever people read it; only what is hashed keeps the reduced fraction."""

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_run import make_run

from robustcal import frame
from robustcal.report.report import gather, text_report, write_report
from robustcal.types import parse_radius, radius_text

#: 3, 0.5, 5 and 17 over 255 as reduced fractions, and a radius that is no multiple of 0.5/255.
RADII = {"1/510": "0.5/255", "1/85": "3/255", "1/51": "5/255", "0.03": "0.03"}
REDUCED = re.compile(r"\b1/(85|51|510|17|15)\b|\b3/100\b")


WHOLE = {"0": "0", "4/255": "4/255", "1": "255/255", "16/255": "16/255"}


@pytest.mark.parametrize("text, shown", {**RADII, **WHOLE, "1/1020": "0.25/255", "1/3400": "0.075/255"}.items())
def test_known_radii(text, shown):
    assert radius_text(text) == radius_text(Fraction(text)) == radius_text(float(Fraction(text))) == shown


@given(st.integers(1, 10**6))
def test_multiples_of_half_a_grey_level_are_over_255(halves):
    whole, below = radius_text(Fraction(halves, 510)).split("/")
    assert below == "255" and Fraction(whole) * 2 == halves and parse_radius(f"{whole}/255") == Fraction(halves, 510)


@given(st.integers(1, 10**6))
def test_thousandths_of_a_grey_level_are_one_radius_however_written(thousandths):
    radius = Fraction(thousandths, 255_000)
    assert parse_radius(radius_text(radius)) == parse_radius(thousandths / 1000 / 255) == radius


@given(st.decimals(0, 1, places=6))
def test_text_is_the_radius_again(value):
    assert parse_radius(radius_text(Fraction(value))) == parse_radius(str(value))


def test_no_reader_meets_a_reduced_fraction(tmp_path):
    run = make_run(tmp_path / "run", models=("clip", "ucat"), datasets=("digits",), radii=tuple(RADII), n=40)
    results = gather([run.path], resamples=50)
    assert results.values("eps") == ["0", "0.5/255", "3/255", "5/255", "0.03"]
    written = write_report(results, ["md", "tex", "csv"], tmp_path / "out", layout="main,by-eps,ablation,calibration")
    texts = {path.name: path.read_text() for path in written} | {"text": text_report(results, "all", width=200)}
    texts |= {"titles": "\n".join(cell.title for cell in run.cells()), "names": " ".join(texts)}
    for name, text in texts.items():
        assert not REDUCED.search(text), (name, REDUCED.search(text))
    assert "main-3-255" in texts["names"] and "main-0.5-255" in texts["names"]


def test_frames_have_the_number_beside_the_text(tmp_path):
    run = make_run(tmp_path / "run", models=("clip",), datasets=("digits",), radii=tuple(RADII), n=40)
    for found in (frame(run.path), frame(run.path, samples=True)):
        pairs = found[["eps", "radius"]].drop_duplicates()
        assert len(pairs) == 5
        assert all(float(parse_radius(eps)) == radius for eps, radius in pairs.itertuples(index=False))
