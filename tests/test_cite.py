"""`robustcal cite`: every name that is shipped has its works, every work is complete, and a run gets those it used."""

from __future__ import annotations

import re

import pytest
from synthetic_run import make_run

from robustcal import registry
from robustcal.cli import main
from robustcal.report.cite import FAMILIES, bibtex, entry, table

FIELDS = {
    "inproceedings": {"author", "title", "booktitle", "year"}, "article": {"author", "title", "journal", "year", "volume", "pages"},
    "techreport": {"author", "title", "institution", "year"}, "misc": {"author", "title", "year"},
}  # fmt: skip
ENTRY = re.compile(r"@(\w+)\{([\w-]+),\n((?:  \w+ = \{.*\},\n)+)\}")


def test_every_name_that_is_shipped_has_its_works(tmp_path):
    for axis, family in FAMILIES.items():
        names = set(family.cards() if axis == "dataset" else family.names()) - {"checkpoint"}
        for name in names:
            if axis == "attack" and family.get(name).meta["kind"] in ("control", "shift"):
                continue  # nothing of others'
            usual = {"models": ("clip",), "attacks": ("clean",), "datasets": ("digits",)}
            made = make_run(tmp_path / axis / name, **usual | {f"{axis}s": (name,)}, radii=("1/255",), n=2)
            assert "No citation" not in bibtex([made]), (axis, name)


def test_what_a_plugin_states_about_itself_is_printed(tmp_path):
    entry_of_mine = "@article{me2026mine, author = {Me}, title = {Mine}, year = {2026}}"

    @registry.register.attack(citation=entry_of_mine)
    def cite_mine(classifier, images, labels, threat):
        """An attack with a citation."""
        return images

    try:
        made = make_run(tmp_path / "run", models=("clip",), attacks=("cite-mine",), datasets=("digits",), n=4)
        assert f"% cite-mine\n{entry_of_mine}\n" in bibtex([made]) and "No citation" not in bibtex([made])
    finally:
        registry.attacks.plugins.pop("cite-mine")


def test_keys_and_works_belong_together():
    used = {key for axis in FAMILIES for keys in table()[axis].values() for key in keys}
    assert used == set(table()["works"])


@pytest.mark.parametrize("key", table()["works"])
def test_a_work_is_complete_and_is_one_bibtex_entry(key):
    work = table()["works"][key]
    assert FIELDS[work["type"]] <= set(work) and 1990 < work["year"] < 2030
    assert str(work["year"]) in key and (work["type"] != "misc" or {"eprint", "howpublished"} & set(work))
    names = work["author"].split(" and ")
    assert all(name.count(",") == 1 for name in names) and len(set(names)) == len(names)
    text = entry(key, work)
    (found,) = ENTRY.findall(text)
    assert found[:2] == (work["type"], key) and all(line.count("{") == line.count("}") for line in text.splitlines()[1:-1])


def test_a_run_gets_the_works_of_all_it_used_each_once(tmp_path, capsys):
    models = ("clip:ViT-B-32/laion2b_s34b_b79k", "fare4-vit-l-14", "temperature:of=ucat:t=1.5", "mine")
    attacks = ("clean", "noise", "pgd:momentum=1.0:steps=3", "pgd:momentum=0.0:steps=4", "transfer:from=tiny-tecoa")
    made = make_run(tmp_path / "run", models=models, attacks=attacks, datasets=("digits", "world-letters", "my-set"), n=4)
    assert main(["cite", str(made.path)]) == 0
    text = capsys.readouterr().out
    keys = [key for _, key, _ in ENTRY.findall(text)]
    assert len(keys) == len(set(keys)) and text.count("@") == len(keys)
    assert set(keys) == {
        "robustcal", "radford2021learning", "cherti2023reproducible", "schuhmann2022laion", "schlarmann2024robust",
        "guo2017calibration", "lu2026calibrating", "madry2018towards", "dong2018boosting", "mao2023understanding",
        "alpaydin1998optical", "pedregosa2011scikit",
    }  # fmt: skip
    assert text.endswith("% No citation is known for: model mine, dataset my-set.\n")


def test_a_parameter_that_is_off_is_not_cited(tmp_path):
    made = make_run(tmp_path / "run", models=("clip",), attacks=("pgd:momentum=0.0",), datasets=("digits",), n=4)
    assert "dong2018boosting" not in bibtex([made]) and "madry2018towards" in bibtex([made])


def test_a_release_by_others_is_cited_beside_the_method(tmp_path):
    made = make_run(tmp_path / "run", models=("tecoa4-vit-b-32-apt", "fare2-vit-h-14"), attacks=("clean",), datasets=("digits",), n=2)
    keys = {key for _, key, _ in ENTRY.findall(bibtex([made]))}
    assert keys >= {"li2024one", "mao2023understanding", "abadrocamora2025robustness", "schlarmann2024robust", "schuhmann2022laion"}
