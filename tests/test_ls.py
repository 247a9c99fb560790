"""`robustcal ls`: every name, in tables that fit the terminal; where it comes from on demand."""

import json
import os

import pytest

from robustcal import registry
from robustcal.cli import main
from robustcal.cli.listing import rows_of, tables
from robustcal.report.layouts import LAYOUTS


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("family", [None, "datasets"])
def test_every_name_is_there_and_no_line_is_wider_than_the_terminal(family, width):
    rows = rows_of(family)
    lines = tables(rows, width=width).splitlines()
    assert max(map(len, lines)) <= width
    names = {line.split()[0] for line in lines if line[:2] == "  " and line[2:3].strip()}
    assert names == {row["name"] for row in rows}


def test_summaries_are_whole_and_columns_are_aligned():
    rows = rows_of("datasets")
    text = tables(rows, width=90)
    words = set(text.replace("-\n", "-").split())
    for row in rows:
        assert {word for word in row["summary"].split() if "-" not in word} <= words
    head, *lines = text.splitlines()[1:]
    end = head.index("size") + len("size")
    for row in rows:
        (line,) = [line for line in lines if f"{line} ".startswith(f"  {row['name']} ")]
        assert "size" not in row or line[:end].split()[-1] == str(row["size"])


def test_the_origin_stands_there_on_demand(capsys, tmp_path):
    assert main(["ls", "attacks"]) == 0
    assert "pgd.py" not in capsys.readouterr().out
    assert main(["ls", "attacks", "--verbose"]) == 0
    origin = next(entry.origin for entry in registry.attacks.entries() if entry.name == "pgd")
    assert origin in capsys.readouterr().out.replace("\n", "").replace(" ", "")


def test_the_layouts_are_listed_when_asked_for(capsys):
    assert main(["ls", "layouts"]) == 0
    found = capsys.readouterr().out
    assert all(f"  {name} " in found for name in LAYOUTS) and "corruptions" in found and "prompt-transfer" in found
    assert all(row["summary"] for row in rows_of("layouts"))


def test_the_data_root_decides_what_is_here(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("ROBUSTCAL_DATA", raising=False)
    (tmp_path / "cifar-10-batches-py").mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(b"")
    assert main(["ls", "datasets", "--json", "--data-root", str(tmp_path)]) == 0
    present = {row["name"]: row.get("present") for row in json.loads(capsys.readouterr().out)}
    assert present["cifar10"] == "yes" and present["cifar100"].startswith("no")
    assert "ROBUSTCAL_DATA" not in os.environ  # a command leaves the caller's environment as it was
