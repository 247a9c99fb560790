"""Submissions that lie: each is refused in one line that names it, nothing of it is written, and the others are shown."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import struct
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from submissions import SMALL, cells_of, forged, members_of, raw, submission
from synthetic_run import make_run

from robustcal.cell import Cell, from_json
from robustcal.cli import main
from robustcal.leaderboard.archive import MANIFEST
from robustcal.leaderboard.pack import pack
from robustcal.leaderboard.reading import read_submission
from robustcal.types import UserError


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return submission(tmp_path_factory.mktemp("honest"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One with logits."""
    folder = tmp_path_factory.mktemp("whole")
    pack(make_run(folder / "run", **SMALL), folder / "whole.zip", logits=True)
    return folder / "whole.zip"


def refusal(path, tmp_path):
    with pytest.raises(UserError) as found:
        read_submission(path, tmp_path / "run", apart=False)
    text = str(found.value)
    assert path.name in text and "\n" not in text and len(text) < 400
    assert not (tmp_path / "run").exists()
    return text


def test_the_honest_one_is_read(honest, tmp_path):
    assert read_submission(honest, tmp_path / "run", apart=False).card.models[0].name == "ucat"


# -- the zip ---------------------------------------------------------------------------------------------------------
def link(archive, _):
    entry = zipfile.ZipInfo("records/0123456789abcdef.parquet")
    entry.external_attr = 0o120777 << 16
    archive.writestr(entry, "/etc/passwd")


ZIPS = {
    "climbs out": lambda archive, _: archive.writestr("../../evil", "x"),
    "absolute": lambda archive, _: archive.writestr("/etc/evil", "x"),
    "backslash": lambda archive, _: archive.writestr("records\\..\\evil.parquet", "x"),
    "nested": lambda archive, _: archive.writestr("records/inner.zip", "PK"),
    "twice": lambda archive, members: archive.writestr("cells.json", members["cells.json"]),
    "bomb": lambda archive, _: archive.writestr("records/0123456789abcdef.parquet", b"\0" * 10**7, zipfile.ZIP_DEFLATED),
    "link": link,
    "script": lambda archive, _: archive.writestr("run.py", "import os"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ZIPS)
def test_tricks_of_zip_files(name, honest, tmp_path):
    text = refusal(raw(honest, tmp_path / "bad.zip", ZIPS[name]), tmp_path)
    assert any(word in text for word in ("which no submission has", "no file", "compressed", "more than it holds"))


def test_an_encrypted_member(honest, tmp_path):
    data = bytearray(honest.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        data[at + offset] |= 1
    (tmp_path / "bad.zip").write_bytes(data)
    assert "encrypted" in refusal(tmp_path / "bad.zip", tmp_path)


def test_members_that_share_their_bytes(honest, tmp_path):
    """An archive whose entries all point at the same data claims more than it is."""
    data = honest.read_bytes()
    end = data.rfind(b"PK\x05\x06")
    count, size, start = struct.unpack("<HII", data[end + 10 : end + 20])
    directory = data[start : start + size]
    many = directory * 40
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count * 40, count * 40, len(many), start, 0)
    (tmp_path / "bad.zip").write_bytes(data[:start] + many + tail)
    refusal(tmp_path / "bad.zip", tmp_path)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not a zip", b"PK\x05\x06" + b"\0" * 18], ids=["empty", "head", "text", "no members"])
def test_what_is_no_zip(data, tmp_path):
    (tmp_path / "bad.zip").write_bytes(data)
    refusal(tmp_path / "bad.zip", tmp_path)


def test_a_folder_and_nothing(tmp_path):
    (tmp_path / "folder.zip").mkdir()
    refusal(tmp_path / "folder.zip", tmp_path)
    refusal(tmp_path / "absent.zip", tmp_path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_changed_byte_is_seen(honest, tmp_path, data):
    """Every member is hashed: a changed byte is refused, or it was one that says nothing (a date, an attribute)."""
    good = honest.read_bytes()
    at, value = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(1, 255))
    bad = bytearray(good)
    bad[at] ^= value
    (tmp_path / "bad.zip").write_bytes(bad)
    try:
        found = read_submission(tmp_path / "bad.zip", tmp_path / f"run-{at}-{value}", apart=False)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert found.content == read_submission(honest, tmp_path / f"good-{at}-{value}", apart=False).content


# -- its words -------------------------------------------------------------------------------------------------------
def cells(change):
    """A forger's edit of cells.json: `change(first cell as JSON)`; with a new id where it is asked for."""

    def edit(members):
        found = cells_of(members)
        one = found["cells"][0]["cell"]
        before = one["id"]
        change(one)
        if one["id"] == before:  # the forger hashes what the identity says now, where it can be hashed at all
            with contextlib.suppress(ValueError, TypeError):
                one["id"] = from_json(Cell, one).identity.digest()
        if isinstance(one["id"], str) and f"records/{before}.parquet" in members and one["id"] != before:
            members[f"records/{one['id']}.parquet"] = members.pop(f"records/{before}.parquet")
        members["cells.json"] = json.dumps(found).encode()

    return edit


def text(name, data):
    return lambda members: members.update({name: data})


def identity(**values):
    return cells(lambda one: one["identity"].update(values))


def field(**values):
    return cells(lambda one: one.update(values))


WORDS = {
    "no JSON": (text("cells.json", b"{"), "cells.json is not JSON"),
    "nan": (text("cells.json", b'{"versions": {}, "cells": [NaN]}'), "no number"),
    "infinite": (text("cells.json", b'{"versions": {}, "cells": [1e999]}'), "no number"),
    "deep": (text("cells.json", b"[" * 100_000), "not JSON"),
    "key twice": (text("cells.json", b'{"versions": {}, "versions": {}, "cells": []}'), "twice"),
    "digits": (text("cells.json", b'{"versions": {}, "cells": [' + b"9" * 5000 + b"]}"), "not JSON"),
    "no cells": (text("cells.json", b'{"versions": {}, "cells": []}'), "0 cells"),
    "a list": (text("cells.json", b"[]"), "is not {versions, cells}"),
    "versions": (text("cells.json", b'{"versions": {"x": 3}, "cells": [1]}'), "versions are not texts"),
    "null cell": (text("cells.json", b'{"versions": {}, "cells": [null]}'), "cell 0"),
    "another id": (cells(lambda one: one.update(id="0" * 16)), "not the hash of its identity"),
    "id as a path": (cells(lambda one: one.update(id="../../../../x")), "which no submission has"),
    "id as a number": (field(id=3), "id is not 3"),
    "unknown field": (field(evil=1), "has no evil"),
    "huge n": (field(n=10**12, dataset_size=10**12), "cannot be"),
    "n below 1": (field(n=0), "cannot be"),
    "n as text": (field(n="many"), "n is not 'many'"),
    "n true": (field(n=True), "n is not True"),
    "classes of numbers": (field(classnames=[1, 2]), "two texts"),
    "one class": (field(classnames=["a"]), "two texts"),
    "prompts": (field(templates=[3]), "prompts are not texts"),
    "worst": (field(kind="worst"), "none that is recorded"),
    "task": (field(task="<b>"), "none that is recorded"),
    "training": (field(training={"seed": {"a": []}}), "training is not plain"),
    "bare spec": (identity(model=""), "malformed"),
    "control characters": (identity(model="a\u0000b"), "control characters"),
    "turned writing": (identity(model="a\u202eb"), "control characters"),
    "a path": (identity(model="checkpoint:/etc/passwd"), "names a path"),
    "a path of the home": (identity(dataset="folder:~/.ssh"), "names a path"),
    "long spec": (identity(model="a" * 5000), "too long"),
    "busy radius": (identity(eps="1e999999999"), "its radius"),
    "another radius": (identity(eps="8/255"), "is not 0.00392|its radius"),
    "busy number": (identity(attack="pgd:step=1e999999999"), "too large"),
    "long number": (identity(attack=f"pgd:step={'9' * 500}"), "too large"),
    "threat": (cells(lambda one: one["identity"]["threat"].update(eps=float(10**30))), "its radius|threat"),
    "range": (cells(lambda one: one["identity"]["threat"].update(low=-5.0)), "within"),
    "threat no object": (identity(threat=[]), "cell 0"),
    "skipped": (lambda members: members.update({"cells.json": json.dumps({"versions": {}, "cells": [{**cells_of(members)["cells"][0], "skipped": {"-1": ["a"]}}]}).encode()}), "skipped"),
    "card": (text("card.toml", b"= ="), "no TOML"),
    "card script": (lambda m: m.update({"card.toml": m["card.toml"] + b'\n[[model]]\nmodel = "x"\nname = "y"\nlink = "javascript:1"\n'}), "no https address"),
    "card of others": (lambda m: m.update({"card.toml": b'[[model]]\nmodel = "clip"\nname = "y"\n'}), "none of the run's"),
    "card not text": (text("card.toml", b"\xff\xfe"), "no TOML"),
    "record missing": (lambda members: members.pop(next(name for name in members if name.startswith("records"))), "is missing"),
    "record too many": (lambda members: members.update({"records/0123456789abcdef.parquet": b""}), "belongs to no cell"),
    "no card": (lambda members: members.pop("card.toml"), "lacks its card"),
    "huge card": (text("card.toml", b"#" * (2**20 + 1)), "larger than"),
    "sign-off": (text("signoff.json", b"{}"), "sign-off"),
}  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_lies_in_its_words(name, honest, tmp_path):
    change, said = WORDS[name]
    found = refusal(forged(honest, tmp_path / "bad.zip", change), tmp_path)
    assert any(part in found for part in said.split("|")), found


def test_two_weights_under_one_name(honest, tmp_path):
    change = cells(lambda one: one["identity"].update(weights="others"))
    assert "several weights" in refusal(forged(honest, tmp_path / "bad.zip", change), tmp_path)


def test_hashes_that_are_not_those_of_the_members(honest, tmp_path):
    members = members_of(honest)
    with zipfile.ZipFile(honest) as archive, zipfile.ZipFile(tmp_path / "bad.zip", "w") as bad:
        bad.writestr(MANIFEST, archive.read(MANIFEST))
        for name, data in members.items():
            bad.writestr(name, data.replace(b"ucat", b"best") if name == "card.toml" else data)
    assert "changed after it was packed" in refusal(tmp_path / "bad.zip", tmp_path)


# -- its records -----------------------------------------------------------------------------------------------------
def columns(change, attacked=True):
    """A forger's edit of the columns of one cell."""

    def edit(members):
        for one in cells_of(members)["cells"]:
            if (one["cell"]["kind"] != "clean") == attacked:
                name = f"records/{one['cell']['id']}.parquet"
                table = pq.read_table(io.BytesIO(members[name]))
                found = {key: table.column(key).to_numpy(zero_copy_only=False).copy() for key in table.column_names}
                made = change(found)
                sink = io.BytesIO()
                pq.write_table(pa.table(made or found), sink, compression="NONE", use_dictionary=False, write_statistics=False)
                members[name] = sink.getvalue()

    return edit


def put(name, value, row=0):
    def change(found):
        found[name][row] = value

    return columns(change)


def whole_column(name, values):
    return columns(lambda found: found.update({name: values(found)}))


def rightly(found):
    """All right: the plainest forgery."""
    found["correct"][:] = True


def consistently(found):
    """All right, and the prediction with it."""
    found["correct"][:], found["prediction"][:] = True, found["label"]


RECORDS = {
    "all correct": (columns(rightly), "correct is not prediction == label"),
    "all correct, predictions too": (columns(consistently), "probability of the label is not the confidence"),
    "confidence nan": (put("confidence", np.nan), "confidence is not always in"),
    "confidence above 1": (put("confidence", 1.5), "confidence is not always in"),
    "confidence below chance": (put("confidence", 0.01), "confidence is not always in"),
    "entropy infinite": (put("entropy", np.inf), "entropy is not always in"),
    "entropy negative": (put("entropy", -1.0), "entropy is not always in"),
    "brier": (put("brier", 9.0), "brier is not always in"),
    "too far": (put("linf", 8 / 255), "linf is not always in"),
    "label": (put("label", 99), "label is not always in"),
    "prediction": (put("prediction", -1), "prediction is not always in"),
    "huge": (put("forwards", 2**31 - 1), None),
    "id twice": (put("id", "digits/test/00001"), "ids are not distinct"),
    "id with a line end": (put("id", "a\nb"), "ids are not distinct"),
    "flag": (put("flags", "<script>"), "flag is not a word"),
    "probabilities": (whole_column("label_probability", lambda f: np.ones_like(f["label_probability"])), "probabilit"),
    "a row dropped": (columns(lambda found: {name: values[1:] for name, values in found.items()}), "39 rows, not 40"),
    "no rows": (columns(lambda found: {name: values[:0] for name, values in found.items()}), "0 rows"),
    "a column missing": (columns(lambda found: {n: v for n, v in found.items() if n != "correct"}), "no column correct"),
    "a column more": (whole_column("evil", lambda f: f["label"]), "which no record has"),
    "text for numbers": (whole_column("confidence", lambda f: f["id"]), "column 'confidence' is string"),
    "bool as text": (whole_column("correct", lambda f: f["id"]), "column 'correct' is string"),
    "gaps": (columns(lambda f: {**f, "entropy": pa.array([None, *f["entropy"][1:].tolist()])}), "gaps"),
    "no parquet": (lambda m: m.update({n: b"PAR1" for n in m if n.startswith("records")}), "no table of records"),
    "truncated": (lambda m: m.update({n: d[:-20] for n, d in m.items() if n.startswith("records")}), "no table of records"),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
def test_lies_in_its_records(name, honest, tmp_path):
    change, said = RECORDS[name]
    path = forged(honest, tmp_path / "bad.zip", change)
    if said is None:
        read_submission(path, tmp_path / "run", apart=False)  # large, but it can be
    else:
        assert said in refusal(path, tmp_path)


def test_records_that_unpack_to_more_are_not_unpacked(honest, tmp_path):
    def change(members):
        for name in [name for name in members if name.startswith("records")]:
            table = pq.read_table(io.BytesIO(members[name]))
            sink = io.BytesIO()
            pq.write_table(table, sink, compression="zstd")
            members[name] = sink.getvalue()

    assert "compressed" in refusal(forged(honest, tmp_path / "bad.zip", change), tmp_path)


def test_a_table_that_ends_its_decoder_is_refused_and_the_others_are_shown(honest, tmp_path, capsys):
    """A codec that does not exist makes Arrow abort the whole process."""

    def change(members):
        name = next(name for name in members if name.startswith("records"))
        data, at = bytearray(members[name]), 0
        while (at := data.find(b"\x15\x00\x16", at + 1)) > 0:  # codec 0 (none), then the number of values, in every column
            data[at + 1] = 42
        members[name] = bytes(data)

    bad = forged(honest, tmp_path / "bad.zip", change)
    assert main(["leaderboard", str(bad), str(honest), "--out", str(tmp_path / "site")]) == 2
    said = capsys.readouterr()
    assert "1 row" in said.out and said.err.count("\n") == 1 and "submission 'bad.zip' is refused" in said.err
    assert "end the process" in said.err


def test_files_that_lie_beside_a_submission_are_not_run(honest, tmp_path, monkeypatch):
    """A pull request may add a module that a reader imports by name."""
    monkeypatch.chdir(tmp_path)
    for name in ("numpy", "pyarrow", "zipfile", "robustcal"):
        (tmp_path / f"{name}.py").write_text("open('hacked', 'w')\n")
    read_submission(honest, tmp_path / "run")
    assert not (tmp_path / "hacked").exists()


def test_what_is_refused_apart_is_refused_in_the_same_words(honest, tmp_path):
    bad = forged(honest, tmp_path / "bad.zip", RECORDS["all correct"][0])
    lines = []
    for apart in (True, False):
        with pytest.raises(UserError) as found:
            read_submission(bad, tmp_path / "run", apart=apart)
        lines.append(str(found.value))
    assert lines[0] == lines[1] and not (tmp_path / "run").exists()
    assert read_submission(honest, tmp_path / "run").content == read_submission(honest, tmp_path / "two", apart=False).content


def test_logits_that_do_not_make_the_prediction(whole, tmp_path):
    read_submission(whole, tmp_path / "good", apart=False)

    def change(members):
        for name in [name for name in members if name.startswith("records")]:
            table = pq.read_table(io.BytesIO(members[name]))
            top = np.stack(table.column("top_logits").to_pylist()) * 0.5
            at = table.column_names.index("top_logits")
            flat = pa.FixedSizeListArray.from_arrays(pa.array(top.astype(np.float32).ravel()), top.shape[1])
            sink = io.BytesIO()
            pq.write_table(table.set_column(at, "top_logits", flat), sink, compression="NONE", use_dictionary=False)
            members[name] = sink.getvalue()

    assert "confidence does not follow from the logits" in refusal(forged(whole, tmp_path / "bad.zip", change), tmp_path)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20), lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text(max_size=8), s, max_size=3), max_leaves=8))
def test_any_cell_is_read_or_refused(honest, tmp_path, value):
    """Whatever stands in the place of any field of a cell: one line, never a traceback."""
    for key in ("identity", "n", "classnames", "templates", "kind", "training", "resolution", "over"):
        change = cells(lambda one, key=key: one.update({key: value}))
        try:
            path = forged(honest, tmp_path / "any.zip", change)
        except (ValueError, OverflowError):
            continue  # not even JSON holds it
        with pytest.raises(UserError) as found:
            read_submission(path, tmp_path / "run", apart=False)
            raise UserError("it was read")  # a value that a field can have, such as n = 1
        assert "\n" not in str(found.value)
        if (tmp_path / "run").exists():
            shutil.rmtree(tmp_path / "run")
