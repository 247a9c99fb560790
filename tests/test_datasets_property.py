"""Random packs, folders, parquet sets and COCO files, each with one random oddity: N in, N out, or refused in one line.

The oracles are `tarfile`, `os.walk`, `pyarrow` and a naive loop over the JSON; pixels are Pillow's own. Every member or
file is part of a sample, or counted in the notes.
"""

import json
import os
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_sets import coco, pack, part, picture, pixels, sample, tar_bytes, tree

from robustcal.registry import datasets
from robustcal.types import UserError

torch.set_num_threads(1)
FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LABELS = st.lists(st.integers(0, 1), min_size=1, max_size=6)
SUFFIXES = st.sampled_from(["png", "PNG", "bmp", "gif", "tiff", "ppm"])
FORMS = {"png": "PNG", "bmp": "BMP", "gif": "GIF", "tiff": "TIFF", "ppm": "PPM"}
NESTED = "images in sub-folders, read as"
#: What says that a sample is there, not that something was left out.
NAMES = ("classes without a name", "names that several", "categories that", "empty lines at the end", NESTED)


def built(spec):
    """The dataset at its own size, or None where it was refused, which takes one line."""
    try:
        return datasets.build(f"{spec}:resolution=native")
    except UserError as error:
        assert "\n" not in str(error)
        return None


def counted(data):
    """How many things the notes count as left out."""
    lines = [note for note in data.notes if not note.startswith(NAMES)]
    return sum(int(line.rsplit(", such as ", 1)[0].rpartition(": ")[2]) for line in lines)


def encoded(label, seed, suffix):
    return picture(100 * label + seed, FORMS[suffix.lower()])


# -- tar packs -----------------------------------------------------------------------------------------------------

#: oddity -> (what it adds to the members of the first shard, whether the pack must be refused)
PACK_ODDITIES = {
    "nothing": ([], False),
    "dots in a key": (sample("img.v2.0001", 1, 77) + sample("img.v2.0002", 0, 78), False),
    "key in folders": (sample("a/b/k0", 1, 77) + sample("a/c/k0", 0, 78), False),
    "shadow files": ([("._k0.png", b"junk"), ("__MACOSX/._k0.cls", b"junk")], False),
    "other members": ([("k0.json", b"{}"), ("k0.mask.png", b"?"), ("notes", b""), ("README.txt", b"")], False),
    "links": ([("link.png", "k0.png"), ("link.cls", "k0.cls")], False),
    "a key twice": (sample("k0", 1, 77), True),
    "an image twice": ([("k0.png", picture(77))], True),
    "a label without an image": ([("z.cls", b"0")], True),
    "an image without a label": ([("z.png", picture(77))], True),
    "a label of no class": (sample("z", 2, 77), True),
    "a label in other digits": ([("z.png", picture(77)), ("z.cls", "\u0661".encode())], True),
}  # fmt: skip


@pytest.mark.parametrize("oddity", PACK_ODDITIES)
@FEW
@given(st.lists(LABELS, min_size=1, max_size=3), SUFFIXES, st.booleans(), st.sampled_from([0, 0, 0, -1, 1]))
def test_packs(oddity, shards, suffix, apart, more):
    extra, must_fail = PACK_ODDITIES[oddity]
    written = []
    for number, labels in enumerate(shards):
        pairs = [[(f"k{i}.{suffix}", encoded(label, i + 10 * number, suffix)), (f"k{i}.cls", str(label).encode())]
                 for i, label in enumerate(labels)]  # fmt: skip
        if number == 0 and suffix != "png":  # the oddities speak of k0.png
            pairs[0] = sample("k0", labels[0], seed=100 * labels[0])
        members = [member for pair in pairs for member in pair]
        members = members[::2] + members[1::2] if apart else members
        written.append(members + extra * (number == 0))
    with tempfile.TemporaryDirectory() as place:
        data = built(pack(Path(place) / "p", written, said=max(1, len(shards) + more)))
        if must_fail or (more and max(1, len(shards) + more) != len(shards)):
            assert data is None
            return
        expected, members = [], 0
        for number in range(len(shards)):
            with tarfile.open(Path(place) / "p" / "test" / f"{number}.tar") as archive:
                held = {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isreg()}
                members += len(archive.getmembers())
            keys = [name[:-4] for name in held if name.endswith(".cls") and "._" not in name]
            expected += [(held[name], int(held[f"{key}.cls"])) for key in keys for name in held
                         if name.rpartition(".")[0] == key and name[-4:] not in (".cls", "json")]  # fmt: skip
        assert sorted((data.content(i), int(data.labels[i])) for i in range(len(data))) == sorted(expected)
        assert 2 * len(data) + counted(data) == members and len(set(data.ids)) == len(data)
        for i in range(len(data)):
            assert np.array_equal(data.pixels(i), pixels(data.content(i)))


@pytest.mark.parametrize("damage", ["nothing", "half", "two in one", "zeros behind", "junk behind", "bit"])
@FEW
@given(LABELS, st.integers(0, 10**6))
def test_damaged_shards_never_lose_samples_silently(damage, labels, where):
    members = [member for i, label in enumerate(labels) for member in sample(f"k{i}", label, i)]
    whole = tar_bytes(members)
    data = {
        "nothing": whole, "half": whole[: where % len(whole)], "two in one": whole + tar_bytes(sample("z", 0)),
        "zeros behind": whole + bytes(where % 5000), "junk behind": whole + bytes(512) + b"junk",
        "bit": b"".join([whole[:148], bytes([whole[148] ^ 1]), whole[149:]]),
    }[damage]  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        spec = pack(Path(place) / "p", [[]])
        (Path(place) / "p" / "test" / "0.tar").write_bytes(data)
        found = built(spec)
    assert found is None if damage in ("two in one", "junk behind", "bit") else found is None or len(found) == len(labels)
    assert damage not in ("nothing", "zeros behind") or len(found) == len(labels)


# -- class folders -------------------------------------------------------------------------------------------------

#: oddity -> (relative files to add, relative links to add, whether the folder must be refused)
FOLDER_ODDITIES = {
    "nothing": ({}, {}, False),
    "shadows": ({"cat/.thumbnails/1.png": 1, "cat/._0.png": 2, "__MACOSX/cat/._0.png": 3, "dog/@eaDir/x/1.jpg": 4}, {}, False),
    "other suffixes": ({"cat/x.heic": 1, "cat/y": 2, "dog/z.SVG": 3, "dog/Thumbs.db": 4}, {}, False),
    "beside the classes": ({"stray.png": 1, ".hidden.png": 2}, {}, False),
    "nested": ({"cat/old/1.png": 1, "cat/old/deep/2.png": 2, "dog/dog/1.png": 3}, {}, False),
    "links upwards": ({}, {"cat/up": "..", "cat/self": ".", "loop": ".", "dog/x": "../cat/.."}, False),
    "links to files": ({}, {"cat/link.png": "0.png"}, False),
    "a folder twice": ({}, {"cat/more": "../dog"}, True),
    "a class twice": ({}, {"eel": "dog"}, True),
    "an empty class": ({"eel/x.txt": 1}, {}, True),
    "a link to nothing": ({}, {"eel": "nowhere"}, True),
}


@pytest.mark.parametrize("oddity", FOLDER_ODDITIES)
@FEW
@given(LABELS, SUFFIXES)
def test_folders(oddity, labels, suffix):
    extra, links, must_fail = FOLDER_ODDITIES[oddity]
    read = {"nested": [*extra], "links to files": [*links]}.get(oddity, [])
    files = {f"{('cat', 'dog')[label]}/{i}.{suffix}": encoded(label, i, suffix) for i, label in enumerate([0, 1, *labels])}
    with tempfile.TemporaryDirectory() as place:
        top = Path(place) / "f"
        spec = tree(top, files | {path: picture(500 + seed) for path, seed in extra.items()})
        for path, target in links.items():
            (top / path).symlink_to(target)
        data = built(spec)
        if must_fail:
            assert data is None
            return
        assert sorted(name.partition("/")[2] for name in data.ids) == sorted([*files, *read])
        there = [os.path.join(path, name) for path, _, names in os.walk(top) for name in names]
        there += [os.path.join(path, name) for path, names, _ in os.walk(top) for name in names if Path(path, name).is_symlink()]
        assert len(data) + counted(data) == len(there) and len(set(data.ids)) == len(data)
        for i, name in enumerate(data.ids):
            path = top / name.partition("/")[2]
            assert data.classnames[data.labels[i]] == path.relative_to(top).parts[0]
            assert not path.exists() or np.array_equal(data.pixels(i), pixels(path.read_bytes()))


# -- parquet -------------------------------------------------------------------------------------------------------

PARQUET_ODDITIES = ("nothing", "a part is missing", "names in another order", "names in one part only", "a part twice",
                    "another split", "hidden copies", "a second folder", "no names")  # fmt: skip


@pytest.mark.parametrize("oddity", PARQUET_ODDITIES)
@FEW
@given(st.lists(LABELS, min_size=2, max_size=4), st.integers(0, 3), st.integers(1, 3))
def test_parquet_sets(oddity, parts, which, group):
    which %= len(parts)
    with tempfile.TemporaryDirectory() as place:
        top = Path(place) / "d"
        for number, labels in enumerate(parts):
            rows = [(picture(100 * number + 10 * i + label), label) for i, label in enumerate(labels)]
            odd = {"names in another order": ("dog", "cat"), "names in one part only": ()} if number == which else {"no names": ()}
            names = odd.get(oddity, () if oddity == "no names" else ("cat", "dog"))
            part(top / "data" / f"test-{number:05d}-of-{len(parts):05d}.parquet", rows, names, group)
        chosen = top / "data" / f"test-{which:05d}-of-{len(parts):05d}.parquet"
        copy = {"a part twice": f"data/{chosen.stem}-copy.parquet", "another split": "data/train-00000-of-00001.parquet",
                "hidden copies": f".cache/{chosen.name}", "a second folder": f"more/{chosen.name}"}.get(oddity)  # fmt: skip
        if oddity == "a part is missing":
            chosen.unlink()
        elif copy:
            (top / copy).parent.mkdir(exist_ok=True)
            (top / copy).write_bytes(chosen.read_bytes())
        data = built(f"huggingface:{top}")
        if oddity not in ("nothing", "another split", "hidden copies"):
            assert data is None
            return
        tables = [parquet.read_table(path).to_pylist() for path in sorted((top / "data").glob("test-*.parquet"))]
        expected = [(row["image"]["bytes"], row["label"]) for table in tables for row in table]
        assert [(data.content(i), int(data.labels[i])) for i in range(len(data))] == expected
        for i in reversed(range(len(data))):
            assert np.array_equal(data.pixels(i), pixels(expected[i][0]))


# -- COCO ----------------------------------------------------------------------------------------------------------

COCO_ODDITIES = {
    "nothing": ({}, False),
    "an annotation twice": ({"annotations": [{"image_id": 0, "category_id": 1}] * 2}, False),
    "ids as text": ({"annotations": [{"image_id": "0", "category_id": "2"}]}, False),
    "a category without a name of its own": ({"categories": [{"id": 5, "name": "cat"}]}, False),
    "an image id twice": ({"images": [{"id": 0, "file_name": "other.png"}]}, True),
    "a file twice": ({"images": [{"id": 50, "file_name": "0.png"}]}, True),
    "a category id twice": ({"categories": [{"id": 1, "name": "eel"}]}, True),
    "an unknown image": ({"annotations": [{"image_id": 50, "category_id": 1}]}, True),
    "an unknown category": ({"annotations": [{"image_id": 0, "category_id": 50}]}, True),
    "an id of a fraction": ({"annotations": [{"image_id": 0.5, "category_id": 1}]}, True),
    "a name that is none": ({"categories": [{"id": 5, "name": None}]}, True),
}


@pytest.mark.parametrize("oddity", COCO_ODDITIES)
@FEW
@given(st.integers(1, 5), st.data(), st.integers(0, 2), st.randoms())
def test_coco_files(oddity, count, draw, unlisted, random):
    pairs = draw.draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(1, 2)), max_size=8))
    more, must_fail = COCO_ODDITIES[oddity]
    with tempfile.TemporaryDirectory() as place:
        top = Path(place) / "c"
        spec = coco(top, count, pairs, **more)
        content = json.loads((top / "a.json").read_text())
        for rows in content.values():
            random.shuffle(rows)
        (top / "a.json").write_text(json.dumps(content))
        for number in range(unlisted):
            (top / f"unlisted{number}.png").write_bytes(picture(900 + number))
        data = built(spec)
        if must_fail:
            assert data is None
            return
        order = sorted(row["id"] for row in content["categories"])
        expected = np.zeros((count, len(order)))
        for row in content["annotations"]:
            expected[int(row["image_id"]), order.index(int(row["category_id"]))] = 1
        assert np.array_equal(data.labels, expected)
        assert [name.partition("/")[2] for name in data.ids] == [f"{number}.png" for number in range(count)]
        assert len(data) + counted(data) == len(list(top.glob("*.png")))
        for i in range(count):
            assert np.array_equal(data.pixels(i), pixels((top / f"{i}.png").read_bytes()))


# -- text files ----------------------------------------------------------------------------------------------------

NAME = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), max_size=8)


@settings(FEW, max_examples=60)
@given(st.lists(NAME, min_size=1, max_size=6), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans(), st.data())
def test_class_names_stay_with_their_labels(names, end, ended, mark, draw):
    label = draw.draw(st.integers(0, len(names) - 1))
    text = ("\ufeff" if mark else "") + end.join(names) + end * ended
    names = [name.removeprefix("\ufeff") if not mark and i == 0 else name for i, name in enumerate(names)]
    with tempfile.TemporaryDirectory() as place:
        data = built(pack(Path(place) / "p", [sample("s", label)], names=text.encode()))
    if not any(name.strip() for name in names):
        assert data is None
    elif data is None:  # without a last line end, an empty last name is no line
        assert not ended and label == len(names) - 1 and not names[-1]
    else:
        assert list(data.classnames) == names[: len(data.classnames)] and data.labels.tolist() == [label]
        assert not any(name.strip() for name in names[len(data.classnames) :])
