"""Hub repositories: parquet files with the hub's own schema, multi-label lists, packs, and what can be wrong."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from dataset_files import FLAT, encode

from robustcal.registry import datasets
from robustcal.types import Dataset, UserError

torch.set_num_threads(1)
LABELS = [2, 0, 1, 1, 2, 0, 0]


def save(path, labels, names=("red", "green", "blue"), kind=None, picture=None):
    """A parquet file as the hub's `datasets` writes it: image struct, ClassLabel in the schema's metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first = [label[0] if isinstance(label, list) else label for label in labels]
    images = [{"bytes": picture or encode(FLAT[label or 0]), "path": f"{n}.png"} for n, label in enumerate(first)]
    feature = {"names": list(names), "_type": "ClassLabel"}
    features = {"image": {"_type": "Image"}, "label": {"feature": feature, "_type": "Sequence"} if kind else feature}
    table = pa.table({"image": images, "label": labels})
    if names:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, path, row_group_size=2)


@pytest.fixture
def repository(tmp_path):
    """Seven test images in two files, one training image."""
    folder = tmp_path / "colours"
    save(folder / "data" / "test-00000-of-00002.parquet", LABELS[:4])
    save(folder / "data" / "test-00001-of-00002.parquet", LABELS[4:])
    save(folder / "data" / "train-00000-of-00001.parquet", [1])
    return folder


def test_parquet_files_become_a_dataset(repository):
    data = datasets.build(f"huggingface:{repository}:resolution=32")
    assert isinstance(data, Dataset) and data.task == "single" and data.name == "colours"
    assert data.labels.tolist() == LABELS and data.labels.dtype == np.int64
    assert list(data.classnames) == ["red", "green", "blue"] and data.ids[5] == "colours/test/00005"
    order = [6, 0, 3, 4, 1, 2, 5]
    batch = data.read(order)
    expected = torch.tensor([FLAT[LABELS[i]] for i in order]) / 255
    assert torch.allclose(batch.images.mean(dim=(2, 3)), expected, atol=1e-6)
    assert batch.labels.tolist() == [LABELS[i] for i in order]


def test_other_splits_and_columns(repository):
    assert datasets.build(f"huggingface:{repository}:split=train").labels.tolist() == [1]
    with pytest.raises(UserError, match="no parquet files of split 'val'; it has: test, train"):
        datasets.build(f"huggingface:{repository}:split=val")
    with pytest.raises(UserError, match="no column 'fine'; it has: image, label"):
        datasets.build(f"huggingface:{repository}:label=fine")


def test_lists_of_labels_are_multi_hot(tmp_path):
    save(tmp_path / "m" / "test.parquet", [[0, 2], [1]], kind="list")
    data = datasets.build(f"huggingface:{tmp_path / 'm'}")
    assert data.task == "multi" and data.labels.tolist() == [[1, 0, 1], [0, 1, 0]]


def test_classes_without_names_need_names(tmp_path):
    save(tmp_path / "n" / "test" / "a.parquet", [0, 2], names=())
    with pytest.raises(UserError, match=r"numbers its classes 0 to 2 and does not name them; give names=FILE"):
        datasets.build(f"huggingface:{tmp_path / 'n'}")
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\ndog\n")
    data = datasets.build(f"huggingface:{tmp_path / 'n'}:names={tmp_path / 'names.txt'}")
    assert list(data.classnames) == ["ant", "bee", "cat", "dog"] and data.labels.tolist() == [0, 2]
    (tmp_path / "names.txt").write_text("ant\nbee\n")
    with pytest.raises(UserError, match="names.txt' has 2 lines for 3 classes"):
        datasets.build(f"huggingface:{tmp_path / 'n'}:names={tmp_path / 'names.txt'}")


def test_what_can_be_wrong(tmp_path):
    save(tmp_path / "a" / "test.parquet", [0, -1])
    with pytest.raises(UserError, match="row 1 of .* has label -1, not 0 to 2"):
        datasets.build(f"huggingface:{tmp_path / 'a'}")
    save(tmp_path / "b" / "test.parquet", [0, 1], picture=b"no picture")
    with pytest.raises(UserError, match="test.parquet, row 1' of dataset 'b' cannot be read"):
        datasets.build(f"huggingface:{tmp_path / 'b'}").read([1])
    (tmp_path / "b" / "test.parquet").write_bytes(b"PAR1 no parquet")
    with pytest.raises(UserError, match="cannot be read"):
        datasets.build(f"huggingface:{tmp_path / 'b'}")
    with pytest.raises(UserError, match="needs a repository"):
        datasets.build("huggingface")


def test_a_repository_out_of_reach_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("ROBUSTCAL_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="neither a folder nor a repository that can be fetched") as caught:
        datasets.build("huggingface:nobody/nothing")
    assert "\n" not in str(caught.value)


def test_a_pack_on_the_hub_is_a_pack(tmp_path):
    import io
    import tarfile

    pack = tmp_path / "wds_colours"
    (pack / "test").mkdir(parents=True)
    (pack / "classnames.txt").write_text("red\ngreen\n")
    (pack / "zeroshot_classification_templates.txt").write_text("a {c} picture\n")
    (pack / "test" / "nshards.txt").write_text("1")
    with tarfile.open(pack / "test" / "0.tar", "w") as archive:
        for name, content in (("0.png", encode(FLAT[1])), ("0.cls", b"1")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    data = datasets.build(f"huggingface:{pack}")
    assert list(data.classnames) == ["red", "green"] and data.ids == ["wds_colours/test/0"]
