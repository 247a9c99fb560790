"""Small sets of any content in the four formats that users bring: class folders, tar packs, parquet files, COCO files."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image

SIDE = 8


def picture(seed, form="PNG"):
    """A picture of random pixels as bytes; another seed is another picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def pixels(data):
    """What Pillow itself reads: RGB bytes (8, 8, 3)."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def tar_bytes(members):
    """A tar archive of (name, bytes) pairs; text in the place of bytes makes a symbolic link to it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            if isinstance(data, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, data
                archive.addfile(entry)
            else:
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def sample(key, label, seed=None, suffix="png"):
    """The two members of one sample of a pack."""
    return [(f"{key}.{suffix}", picture(label if seed is None else seed)), (f"{key}.cls", str(label).encode())]


def pack(root, shards, names=b"cat\ndog\n", templates=b"a photo of a {c}.\n", said=None):
    """A pack of these shards, each a list of members; returns its spec."""
    (root / "test").mkdir(parents=True)
    (root / "classnames.txt").write_bytes(names)
    (root / "zeroshot_classification_templates.txt").write_bytes(templates)
    (root / "test" / "nshards.txt").write_text(str(len(shards) if said is None else said))
    for number, members in enumerate(shards):
        (root / "test" / f"{number}.tar").write_bytes(tar_bytes(members))
    return f"webdataset:{root}"


def tree(root, files):
    """Files below a folder, by relative path; returns the spec of a folder of class folders."""
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return f"folder:{root}"


def part(path, rows, names=("cat", "dog"), group=2):
    """A parquet file of (picture, label) rows, as the hub's `datasets` writes it; without `names`, plain integers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = pa.array([{"bytes": data, "path": None} for data, _ in rows], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    table = pa.table({"image": images, "label": pa.array([label for _, label in rows], pa.int64())})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, path, row_group_size=group)


def coco(root, count=2, pairs=((0, 1), (1, 2)), names=((1, "cat"), (2, "dog")), **more):
    """An annotation file and its pictures; images=, annotations= and categories= are rows to add."""
    content = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(count)],
        "annotations": [{"image_id": image, "category_id": category} for image, category in pairs],
        "categories": [{"id": number, "name": name} for number, name in names],
    }
    content = {key: rows + more.get(key, []) for key, rows in content.items()}
    root.mkdir(parents=True, exist_ok=True)
    (root / "a.json").write_text(json.dumps(content))
    for number in range(count):
        (root / f"{number}.png").write_bytes(picture(number))
    return f"coco:{root / 'a.json'}"
