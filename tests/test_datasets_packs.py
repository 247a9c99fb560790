"""Tar packs: what is read, in which order, and how every kind of damage is reported."""

import gzip
import io
import shutil
import tarfile
import tracemalloc

import numpy as np
import pytest
import torch
from dataset_files import FLAT as COLOURS
from dataset_files import encode

from robustcal.datasets.shards import Shard
from robustcal.registry import datasets
from robustcal.types import Dataset, UserError

torch.set_num_threads(1)


def tar_bytes(members):
    """A tar archive of (name, bytes) pairs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def sample(number, label, suffix="png", data=None):
    """The two members of one sample."""
    picture = data if data is not None else encode(COLOURS[label])
    return [(f"s{number:07d}.{suffix}", picture), (f"s{number:07d}.cls", str(label).encode())]


@pytest.fixture
def pack(tmp_path):
    """Three classes in two shards, six samples; the second shard is gzipped."""
    root = tmp_path / "colours"
    (root / "test").mkdir(parents=True)
    (root / "classnames.txt").write_text("red\ngreen\nblue\n")
    (root / "zeroshot_classification_templates.txt").write_text("a {c} picture\na photo of something {c}.\n")
    (root / "test" / "nshards.txt").write_text("2\n")
    shards = [[sample(0, 2), sample(1, 0), sample(2, 1)], [sample(3, 1), sample(4, 2), sample(5, 0)]]
    flat = [[member for pair in shard for member in pair] for shard in shards]
    (root / "test" / "0.tar").write_bytes(tar_bytes(flat[0]))
    (root / "test" / "1.tar.gz").write_bytes(gzip.compress(tar_bytes(flat[1])))
    return root


def one_shard(pack, members):
    """Replace the test split of a pack by one shard."""
    shutil.rmtree(pack / "test")
    (pack / "test").mkdir()
    (pack / "test" / "nshards.txt").write_text("1")
    (pack / "test" / "0.tar").write_bytes(tar_bytes(members))


def test_a_pack_becomes_a_dataset(pack):
    data = datasets.build(f"webdataset:{pack}:resolution=native")
    assert isinstance(data, Dataset)
    assert (data.name, data.task, data.resolution) == ("colours", "single", 32)
    assert tuple(data.classnames) == ("red", "green", "blue")
    assert tuple(data.templates) == ("a {} picture", "a photo of something {}.")
    assert data.labels.tolist() == [2, 0, 1, 1, 2, 0] and data.labels.dtype == np.int64
    assert data.ids[4] == "colours/test/s0000004"


def test_reading_out_of_order_gives_the_right_pictures_and_labels(pack):
    batch = datasets.build(f"webdataset:{pack}:resolution=native").read([4, 1, 3])
    assert batch.ids == ("colours/test/s0000004", "colours/test/s0000001", "colours/test/s0000003")
    assert batch.labels.tolist() == [2, 0, 1] and batch.labels.dtype == torch.int64
    assert batch.images.shape == (3, 3, 32, 32) and batch.images.dtype == torch.float32
    expected = torch.tensor([COLOURS[2], COLOURS[0], COLOURS[1]]) / 255
    assert torch.equal(batch.images[:, :, 7, 9], expected)


def test_an_empty_read_has_the_right_shape(pack):
    batch = datasets.build(f"webdataset:{pack}:resolution=16").read([])
    assert len(batch) == 0 and batch.images.shape == (0, 3, 16, 16) and batch.labels.shape == (0,)


def test_resolution_and_recipe_are_parameters(pack):
    wide = sample(0, 0, data=encode(COLOURS[0], (100, 50)))
    (pack / "test" / "0.tar").write_bytes(tar_bytes(wide))
    assert datasets.build(f"webdataset:{pack}").read([0]).images.shape[-2:] == (224, 224)
    for recipe in ("crop", "stretch", "clip"):
        images = datasets.build(f"webdataset:{pack}:resolution=40:preprocess={recipe}").read([0]).images
        assert images.shape[-2:] == (40, 40)
    with pytest.raises(UserError, match="no native resolution"):
        datasets.build(f"webdataset:{pack}:resolution=native")
    with pytest.raises(UserError, match="100x50, not 32x32"):
        datasets.build(f"webdataset:{pack}:resolution=32:preprocess=native").read([0])
    with pytest.raises(UserError, match="unknown preprocess 'squash'"):
        datasets.build(f"webdataset:{pack}:preprocess=squash")
    with pytest.raises(UserError, match="resolution 'big'"):
        datasets.build(f"webdataset:{pack}:resolution=big")


def test_identity_follows_content_not_place(pack, tmp_path):
    copy = tmp_path / "elsewhere" / "colours"
    shutil.copytree(pack, copy)
    first = datasets.build(f"webdataset:{pack}").identity
    assert datasets.build(f"webdataset:{copy}").identity == first
    assert datasets.build(f"webdataset:{copy}:resolution=32").identity != first
    changed = [m for n, label in ((0, 2), (1, 0), (2, 0)) for m in sample(n, label)]
    (copy / "test" / "0.tar").write_bytes(tar_bytes(changed))
    assert datasets.build(f"webdataset:{copy}").identity != first


def test_multi_hot_labels(pack):
    def row(values):
        buffer = io.BytesIO()
        np.save(buffer, np.array(values))
        return buffer.getvalue()

    pictures = encode(COLOURS[0]), encode(COLOURS[1])
    members = [("a.png", pictures[0]), ("a.npy", row([1, 0, 1])), ("b.png", pictures[1]), ("b.npy", row([0, 0, 0]))]
    one_shard(pack, members)
    data = datasets.build(f"webdataset:{pack}")
    assert data.task == "multi" and data.labels.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert data.read([1]).labels.tolist() == [[0.0, 0.0, 0.0]]


def test_keys_that_restart_in_each_shard_stay_apart(pack):
    (pack / "test" / "1.tar.gz").write_bytes(gzip.compress(tar_bytes(sample(0, 1))))
    ids = datasets.build(f"webdataset:{pack}").ids
    assert len(set(ids)) == 4 and ids[0] == "colours/test/0-s0000000" and ids[3] == "colours/test/1-s0000000"


def test_other_suffixes_nested_names_and_hidden_files(pack):
    picture = encode(COLOURS[1], form="JPEG")
    members = [("./x/._s1.png", b"junk"), ("./x/s1.json", b"{}"), ("./x/s1.cls", b"1\n"), ("./x/s1.JPEG", picture)]
    one_shard(pack, members)
    data = datasets.build(f"webdataset:{pack}")
    assert data.ids == ["colours/test/s1"] and data.labels.tolist() == [1]
    assert data.read([0]).images.shape == (1, 3, 224, 224)


def broken(pack, damage):
    """Damage a pack in a named way."""
    test, names = pack / "test", pack / "classnames.txt"
    {
        "no classnames": lambda: names.unlink(),
        "empty classnames": lambda: names.write_text("\n"),
        "no templates": lambda: (pack / "zeroshot_classification_templates.txt").unlink(),
        "template without class": lambda: (pack / "zeroshot_classification_templates.txt").write_text("a photo\n"),
        "no split": lambda: test.rename(pack / "train"),
        "no nshards": lambda: (test / "nshards.txt").unlink(),
        "nshards is text": lambda: (test / "nshards.txt").write_text("two"),
        "missing shard": lambda: (test / "nshards.txt").write_text("3"),
        "truncated tar": lambda: (test / "0.tar").write_bytes((test / "0.tar").read_bytes()[:1700]),
        "unfinished tar": lambda: (test / "0.tar").write_bytes((test / "0.tar").read_bytes()[:3072]),
        "truncated gzip": lambda: (test / "1.tar.gz").write_bytes((test / "1.tar.gz").read_bytes()[:100]),
        "not a tar": lambda: (test / "0.tar").write_bytes(b"hello " * 400),
        "empty shard": lambda: (test / "0.tar").write_bytes(tar_bytes([])),
        "label out of range": lambda: (test / "0.tar").write_bytes(tar_bytes([("a.png", b""), ("a.cls", b"3")])),
        "label is text": lambda: (test / "0.tar").write_bytes(tar_bytes([("a.png", b""), ("a.cls", b"red")])),
        "no label": lambda: (test / "0.tar").write_bytes(tar_bytes([("a.png", b"")])),
        "captions": lambda: (test / "0.tar").write_bytes(tar_bytes([("a.png", b""), ("a.txt", b"a dog")])),
        "no image": lambda: (test / "0.tar").write_bytes(tar_bytes([("a.cls", b"0")])),
        "bad npy": lambda: (test / "0.tar").write_bytes(tar_bytes([("a.png", b""), ("a.npy", b"?")])),
    }[damage]()


@pytest.mark.parametrize(
    "damage, message",
    [
        ("no classnames", r"classnames.txt' is missing; it holds one class name per line"),
        ("empty classnames", r"classnames.txt' is empty"),
        ("no templates", r"zeroshot_classification_templates.txt' is missing"),
        ("template without class", r"prompt template 'a photo' in .*templates.txt must hold the class name once"),
        ("no split", r"no split 'test'; it has: train"),
        ("no nshards", r"nshards.txt' is missing; it holds the number of shards"),
        ("nshards is text", r"nshards.txt' says 'two'"),
        ("missing shard", r"shard '.*2.tar' cannot be read: No such file"),
        ("truncated tar", r"shard '.*0.tar' ends inside its member 's0000000.cls'; it is truncated"),
        ("unfinished tar", r"shard '.*0.tar' has no end-of-archive mark; it is truncated"),
        ("truncated gzip", r"shard '.*1.tar.gz' cannot be read"),
        ("not a tar", r"shard '.*0.tar' is not a whole tar file"),
        ("empty shard", r"shard '.*0.tar' holds no samples"),
        ("label out of range", r"sample 'a' of shard '.*0.tar' has label '3'; labels are 0 to 2"),
        ("label is text", r"label 'red'"),
        ("no label", r"no label member"),
        ("captions", r"retrieval pack"),
        ("no image", r"sample 'a' of shard '.*0.tar' has no image"),
        ("bad npy", r"unreadable .npy label"),
    ],
)
def test_damage_is_named(pack, damage, message):
    broken(pack, damage)
    with pytest.raises(UserError, match=message) as caught:
        datasets.build(f"webdataset:{pack}")
    assert "\n" not in str(caught.value)


def test_an_undecodable_image_is_named_and_the_others_still_read(pack):
    bad = encode(COLOURS[0], (64, 64), "JPEG")[:300]
    members = sample(0, 1) + sample(1, 0, "jpg", bad) + sample(2, 2, data=b"nothing")
    (pack / "test" / "0.tar").write_bytes(tar_bytes(members))
    data = datasets.build(f"webdataset:{pack}")
    for index, member in ((1, "s0000001.jpg"), (2, "s0000002.png")):
        with pytest.raises(UserError, match=rf"image '.*0.tar:{member}' of dataset 'colours' cannot be read"):
            data.read([0, index])
    assert len(data.read([0, 3])) == 2


def test_reading_leaves_nothing_behind(pack):
    data = datasets.build(f"webdataset:{pack}")
    data.read(range(6))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(20):
        data.read(range(6))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 224 * 224 * 3, "less than one of the 120 images may stay in memory"


def test_paths_that_are_no_packs(tmp_path):
    with pytest.raises(UserError, match="needs a folder"):
        datasets.build("webdataset")
    with pytest.raises(UserError, match="does not exist"):
        datasets.build(f"webdataset:{tmp_path}/nowhere")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_are_found_where_tarfile_finds_them(tmp_path, form):
    names = ["a.cls", "deep/" * 15 + "b.cls", "x" * 90 + "/" + "y" * 80 + ".cls", "ä-ö.cls"]
    if form != tarfile.USTAR_FORMAT:
        names.append("long" * 60 + ".cls")
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w", format=form) as archive:
        for number, name in enumerate(names):
            for kind in (tarfile.DIRTYPE, tarfile.REGTYPE):
                entry = tarfile.TarInfo(name if kind == tarfile.REGTYPE else f"folder{number}")
                entry.type, entry.mtime = kind, 1.5 if form == tarfile.PAX_FORMAT else 1  # fractions need a record
                entry.size = 700 * number if kind == tarfile.REGTYPE else 0
                archive.addfile(entry, io.BytesIO(bytes([number]) * entry.size))
    with tarfile.open(path) as archive:
        expected = [(m.name, m.size, m.offset_data) for m in archive if m.isreg()]
    members = list(Shard(path).members())
    assert [(m.name, m.size, m.offset) for m in members] == expected
    assert [m.read() for m in members] == [bytes([n]) * 700 * n for n in range(len(names))]


def test_a_relative_path_is_of_the_working_folder_then_of_the_data_root(pack, tmp_path, monkeypatch):
    here, root = tmp_path / "here", tmp_path / "root"
    here.mkdir()
    shutil.copytree(pack, root / "packs" / "colours")
    monkeypatch.chdir(here)
    monkeypatch.setenv("ROBUSTCAL_DATA", str(root))
    spec = "webdataset:packs/colours:resolution=native"
    below = datasets.build(spec)
    assert below.ids == datasets.build(f"webdataset:{pack}:resolution=native").ids
    shutil.copytree(pack, here / "packs" / "colours")
    (here / "packs" / "colours" / "classnames.txt").write_text("one\ntwo\nthree\n")
    assert tuple(datasets.build(spec).classnames) == ("one", "two", "three")
    with pytest.raises(UserError, match="webdataset folder 'packs/none' does not exist"):
        datasets.build("webdataset:packs/none")
