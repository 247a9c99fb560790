"""Multi-label data in the COCO format: labels, order, counts and damage, on a miniature annotation file."""

import json

import pytest
import torch
from dataset_files import COLOURS, picture, write

from robustcal.registry import datasets
from robustcal.types import Dataset, UserError

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """An empty data root."""
    monkeypatch.setenv("ROBUSTCAL_DATA", str(tmp_path))
    return tmp_path


def coco(root, rows):
    """Four images in the layout of MS-COCO 2017; `rows`: the set of category names of each image."""
    base = root / "coco2017"
    ids = {"toothbrush": 90, "person": 1, "traffic light": 10}
    images = [{"id": 100 + n, "file_name": f"{100 + n:012d}.jpg"} for n in range(len(rows))]
    annotations = [
        {"image_id": 100 + n, "category_id": ids[name], "iscrowd": k % 2, "area": 1.0, "bbox": [0, 0, 1, 1]}
        for n, names in enumerate(rows)
        for k, name in enumerate(sorted(names) * 2)  # several instances of a category in one image
    ]
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    content = {"info": {}, "images": images[::-1], "annotations": annotations, "categories": categories}
    write(base / "annotations" / "instances_val2017.json", json.dumps(content))
    for number in range(len(rows)):
        picture(base / "val2017" / f"{100 + number:012d}.jpg", number)


ROWS = [{"person", "toothbrush"}, set(), {"traffic light"}, {"person"}]


def test_coco_labels_are_multi_hot_over_sorted_categories(root):
    coco(root, ROWS)
    data = datasets.build("coco-2017:check=false")
    assert isinstance(data, Dataset) and data.task == "multi"
    assert list(data.classnames) == ["person", "traffic light", "toothbrush"]
    assert data.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert data.ids[2] == "coco-2017/val/000000000102.jpg"
    batch = data.read([2, 1])
    assert batch.labels.dtype == torch.float32 and batch.labels.tolist() == [[0, 1, 0], [0, 0, 0]]
    expected = torch.from_numpy(COLOURS[[2, 1]]).float() / 255
    assert torch.allclose(batch.images.mean(dim=(2, 3)), expected, atol=0.02)


def test_coco_counts_are_checked(root):
    coco(root, ROWS)
    with pytest.raises(UserError, match="'coco-2017' has 3 classes in .*, its card says 80"):
        datasets.build("coco-2017")


def test_an_annotation_file_of_ones_own(root):
    coco(root, ROWS)
    path = root / "coco2017" / "annotations" / "instances_val2017.json"
    data = datasets.build(f"coco:{path}:images={root / 'coco2017' / 'val2017'}:resolution=32")
    assert data.name == "instances_val2017" and data.read([0]).images.shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda content: content[: len(content) // 2], "is not JSON"),
        (lambda content: "[]", "not in the COCO instances format"),
        (lambda content: json.dumps({**json.loads(content), "images": []}), "lacks image 100"),
        (lambda content: content.replace('"categories"', '"kinds"'), "no 'categories'"),
    ],
)
def test_damaged_annotations_are_named(root, damage, message):
    coco(root, ROWS)
    path = root / "coco2017" / "annotations" / "instances_val2017.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=message) as caught:
        datasets.build("coco-2017")
    assert "instances_val2017.json" in str(caught.value)
