"""Records of a stranger: a plain parquet table whose columns have their types and whose values can be what they say."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..cell import Cell
from ..records.shardfile import as_array
from .archive import refused
from .card import is_plain

#: Column -> kind of its values; those in brackets need not be there.
KINDS = {
    "id": "text", "flags": "text", "correct": "bool",
    **dict.fromkeys(("label", "prediction"), "int"),
    **dict.fromkeys(("confidence", "label_probability", "entropy", "brier", "linf", "l2"), "float"),
    **dict.fromkeys(("dirichlet_confidence", "log_alpha0", "au", "log_eu"), "float or nan"),
    **dict.fromkeys(("forwards", "backwards", "zero_gradients"), "count"),
}  # fmt: skip
FURTHER = {"labels": "list", "top_logits": "floats", "top_classes": "ints", "rest_logit": "any float"}
FLAGS = re.compile(r"[a-z0-9-]*(,[a-z0-9-]+)*")
SLACK = 1e-5


def read_columns(data: bytes, cell: Cell, rows: int, path: Path) -> dict[str, np.ndarray]:
    """The records of a cell, `rows` of them, with every value checked.

    Raises:
        UserError: one line that says what is wrong, in the name of the file `path`.
    """
    records: dict[str, np.ndarray] = {}
    try:
        with pq.ParquetFile(io.BytesIO(data)) as file:
            fault = _layout_fault(file, rows)
            table = None if fault else file.read(use_threads=False)
        if table is not None:
            if table.num_rows != rows or any(table.column(name).null_count for name in table.column_names):
                fault = "they have gaps"
            else:
                records = {name: as_array(table.column(name)) for name in table.column_names}
                fault = value_fault(records, cell)
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, MemoryError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        fault = f"they are no table of records ({said[:80]})"
    if fault:
        raise refused(path, f"records of cell {cell.id}: {fault}")
    return records


def _layout_fault(file: pq.ParquetFile, rows: int) -> str:
    """What the footer says that it should not; "" where nothing. Plain pages of known size cannot unpack to more."""
    about, schema = file.metadata, file.schema_arrow
    if about.num_rows != rows or not rows:
        return f"they are {about.num_rows} rows, not {rows}"
    for group in range(about.num_row_groups):
        for at in range(about.num_columns):
            column = about.row_group(group).column(at)
            if column.compression != "UNCOMPRESSED" or {*column.encodings} - {"PLAIN", "RLE", "BIT_PACKED"}:
                return "they are compressed; a submission's are plain"
    for name in KINDS:
        if name not in schema.names:
            return f"they have no column {name}"
    if len(schema.names) != len(set(schema.names)):
        return "a column stands there twice"
    for field in schema:
        kind = {**KINDS, **FURTHER}.get(field.name)
        if kind is None or not _fits(field.type, kind):
            return f"column {field.name[:40]!r} is {field.type}" + ("" if kind else ", which no record has")
    return ""


def _fits(given: pa.DataType, kind: str) -> bool:
    lists = pa.types.is_list(given) or pa.types.is_fixed_size_list(given)
    inner = {"list": pa.types.is_integer, "ints": pa.types.is_integer, "floats": pa.types.is_floating}
    if kind in inner:
        return bool(lists and inner[kind](given.value_type))
    tests = {"text": pa.types.is_string, "bool": pa.types.is_boolean, "int": pa.types.is_integer}
    return bool(tests.get(kind, lambda t: pa.types.is_floating(t) or (kind == "count" and pa.types.is_integer(t)))(given))


def value_fault(records: dict[str, np.ndarray], cell: Cell) -> str:
    """What cannot be true of these records; "" where everything can."""
    ids, flags, classes = records["id"], records["flags"], len(cell.classnames)
    if len(set(ids)) < len(ids) or not all(0 < len(name) <= 400 and is_plain(name) for name in ids):
        return "sample ids are not distinct lines of text"
    if not all(len(text) <= 400 and FLAGS.fullmatch(text) for text in flags):
        return "a flag is not a word"
    one = cell.task == "single"
    limits = {
        "prediction": (0, classes - 1), "label": (0, classes - 1) if one else (-1, -1), "confidence": (1 / classes, 1),
        **dict.fromkeys(("label_probability", "dirichlet_confidence", "linf"), (0, 1)), "brier": (0, 2), "l2": (0, 1e6),
        **dict.fromkeys(("entropy", "au"), (0, np.log(classes))), **dict.fromkeys(("log_alpha0", "log_eu"), (-1e6, 1e6)),
        **dict.fromkeys(("forwards", "backwards", "zero_gradients"), (0, 1e12)),
    }  # fmt: skip
    if cell.threat.norm in ("linf", "l2") and cell.kind not in ("clean", "shift"):
        limits[cell.threat.norm] = (0, cell.threat.eps)
    for name, (low, high) in limits.items():
        values = records[name].astype(np.float64)
        known = values[~np.isnan(values)] if KINDS[name].endswith("nan") else values
        if not ((known >= low - SLACK) & (known <= high + SLACK * max(1, high))).all():
            return f"{name} is not always in [{low:.4g}, {high:.4g}]"
    if "labels" in records and not all(((row >= 0) & (row < classes)).all() for row in records["labels"]):
        return "labels names a class that there is not"
    return _contradiction(records, one)


def _contradiction(records: dict[str, np.ndarray], one: bool) -> str:
    """What follows from other columns and is not what follows."""
    correct, confidence, mass = records["correct"], records["confidence"], records["label_probability"]
    if one and (correct != (records["prediction"] == records["label"])).any():
        return "correct is not prediction == label"
    if not one and ("labels" not in records or (correct != list(map(np.isin, records["prediction"], records["labels"]))).any()):
        return "correct is not whether the prediction is among the labels"
    if one and (np.abs(mass - confidence)[correct] > SLACK).any():
        return "where the prediction is right, the probability of the label is not the confidence"
    if one and ((mass > confidence + SLACK) | (~correct & (mass + confidence > 1 + SLACK))).any():
        return "probabilities add up to more than 1"
    if "top_logits" in records:
        return _logit_fault(records)
    return "" if one else "with several labels an image, the numbers need logits"


def _logit_fault(records: dict[str, np.ndarray]) -> str:
    if not {"top_classes", "rest_logit"} <= records.keys() or records["top_logits"].ndim != 2:
        return "logits lack their classes or their rest"
    top, rest = records["top_logits"].astype(np.float64), records["rest_logit"].astype(np.float64)
    if not np.isfinite(top).all() or (np.isnan(rest) | (rest > 1e6)).any() or records["top_classes"].shape != top.shape:
        return "logits are not numbers"
    if (records["top_classes"][:, 0] != records["prediction"]).any() or (np.diff(top, axis=1) > 0).any():
        return "prediction is not the class of the largest logit"
    confidence = 1 / (np.exp(top - top[:, :1]).sum(1) + np.exp(rest - top[:, 0]))
    return "" if (np.abs(confidence - records["confidence"]) <= 1e-3).all() else "confidence does not follow from the logits"
