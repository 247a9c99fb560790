"""Miniature copies of the field's datasets in their genuine on-disk formats, every image one flat colour per label.

Each maker takes the data root and a list of labels and writes what the authors' archives unpack to. Pictures are
flat, so that a test can tell from the pixels whether image and label belong together.
"""

import io
import json
import pickle
import struct

import numpy as np
from PIL import Image

COLOURS = np.array([[220, 20, 20], [20, 220, 20], [20, 20, 220], [220, 220, 20], [20, 220, 220]], dtype=np.uint8)

#: Three colours as tuples, for pictures that are made in memory.
FLAT = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]


def encode(colour, size=(32, 32), form="PNG", mode="RGB"):
    """One flat picture as bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(buffer, form)
    return buffer.getvalue()


def flat(label, height, width):
    """RGB bytes (height, width, 3) in the colour of a label."""
    return np.broadcast_to(COLOURS[label], (height, width, 3)).copy()


def picture(path, label, size=(80, 60), **options):
    """Save the flat picture of a label; size is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(flat(label, size[1], size[0])).save(path, **options)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value))


def planes(labels, side):
    """Channel-first bytes (n, 3, side, side)."""
    return np.stack([flat(label, side, side) for label in labels]).transpose(0, 3, 1, 2)


def cifar10(root, labels):
    base = root / "cifar-10-batches-py"
    rows = planes(labels, 32).reshape(len(labels), -1)
    for name in [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]:
        dump(base / name, {"data": rows, "labels": list(labels), "batch_label": name})
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    dump(base / "batches.meta", {"label_names": names, "num_vis": 3072})


def cifar100(root, labels):
    base = root / "cifar-100-python"
    rows = planes(labels, 32).reshape(len(labels), -1)
    for name in ("train", "test"):
        dump(base / name, {"data": rows, "fine_labels": list(labels), "coarse_labels": [0] * len(labels)})
    dump(base / "meta", {"fine_label_names": ["apple", "aquarium_fish", "baby"], "coarse_label_names": ["x"]})


def stl10(root, labels):
    base = root / "stl10_binary"
    base.mkdir(parents=True)
    # Columns before rows, labels from 1: as the authors' Matlab wrote them.
    columns = planes(labels, 96).transpose(0, 1, 3, 2)
    for name in ("train_X.bin", "test_X.bin", "unlabeled_X.bin"):
        columns.tofile(base / name)
    for name in ("train_y.bin", "test_y.bin"):
        (np.array(labels, dtype=np.uint8) + 1).tofile(base / name)
    write(base / "class_names.txt", "airplane\nbird\ncar\n")


def svhn(root, labels):
    from scipy.io import savemat

    stacked = np.stack([flat(label, 32, 32) for label in labels], axis=3)
    digits = np.array([label or 10 for label in labels], dtype=np.uint8)[:, None]  # the digit 0 is stored as 10
    savemat(root / "test_32x32.mat", {"X": stacked, "y": digits})


def fashion_mnist(root, labels):
    base = root / "FashionMNIST" / "raw"
    base.mkdir(parents=True)
    grey = np.stack([np.full((28, 28), 40 * label, dtype=np.uint8) for label in labels])
    for part in ("train", "t10k"):
        head = struct.pack(">IIII", 0x803, len(labels), 28, 28)
        (base / f"{part}-images-idx3-ubyte").write_bytes(head + grey.tobytes())
        (base / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, len(labels)) + bytes(labels))


def sun397(root, labels):
    classes = ["/a/abbey", "/a/athletic_field/outdoor", "/z/zen_garden"]
    write(root / "SUN397" / "ClassName.txt", "\n".join(classes) + "\n")
    for number, label in enumerate(labels):
        picture(root / "SUN397" / classes[label][1:] / f"sun_{number:03d}.jpg", label)


def food101(root, labels):
    classes = ["apple_pie", "baby_back_ribs", "waffles"]
    base = root / "food-101"
    listed = {name: [f"{name}/{n}" for n, label in enumerate(labels) if classes[label] == name] for name in classes}
    for part in ("train", "test"):
        write(base / "meta" / f"{part}.json", json.dumps(listed))
    for number, label in enumerate(labels):
        picture(base / "images" / classes[label] / f"{number}.jpg", label)


def oxford_pets(root, labels):
    base = root / "oxford-iiit-pet"
    classes = ["Abyssinian", "american_bulldog", "wheaten_terrier"]
    lines = [f"{classes[label]}_{number} {label + 1} 1 1" for number, label in enumerate(labels)]
    for part in ("test", "trainval"):
        write(base / "annotations" / f"{part}.txt", "\n".join(lines) + "\n")
    for line, label in zip(lines, labels):
        picture(base / "images" / f"{line.split()[0]}.jpg", label)


def flowers102(root, labels):
    from scipy.io import savemat

    base = root / "flowers-102"
    for number, label in enumerate(labels, 1):
        picture(base / "jpg" / f"image_{number:05d}.jpg", label)
    savemat(base / "imagelabels.mat", {"labels": np.array([[label + 1 for label in labels]], dtype=np.uint8)})
    ids = np.arange(1, len(labels) + 1, dtype=np.uint16)[None]
    savemat(base / "setid.mat", {"trnid": ids, "valid": ids, "tstid": ids})


def dtd(root, labels):
    base = root / "dtd" / "dtd"
    classes = ["banded", "polka-dotted", "zigzagged"]
    files = [f"{classes[label]}/{classes[label]}_{number:04d}.jpg" for number, label in enumerate(labels)]
    for part in ("train", "val", "test"):
        write(base / "labels" / f"{part}1.txt", "\n".join(files) + "\n")
    for file, label in zip(files, labels):
        picture(base / "images" / file, label)


def eurosat(root, labels):
    classes = ["AnnualCrop", "Forest", "SeaLake"]
    for number, label in enumerate(labels):
        picture(root / "eurosat" / "2750" / classes[label] / f"{classes[label]}_{number}.jpg", label, (64, 64))


def fgvc_aircraft(root, labels):
    base = root / "fgvc-aircraft-2013b" / "data"
    variants = ["707-320", "A340-200", "Yak-42"]
    write(base / "variants.txt", "\n".join(variants) + "\n")
    lines = [f"{number:07d} {variants[label]}" for number, label in enumerate(labels)]
    for part in ("train", "val", "trainval", "test"):
        write(base / f"images_variant_{part}.txt", "\n".join(lines) + "\n")
    for line, label in zip(lines, labels):
        picture(base / "images" / f"{line.split()[0]}.jpg", label)


def caltech101(root, labels):
    base = root / "caltech101" / "101_ObjectCategories"
    classes = ["Faces_easy", "Leopards", "water_lilly"]
    counts = [0, 0, 0]
    picture(base / "BACKGROUND_Google" / "image_0001.jpg", 4)
    for label in labels:
        counts[label] += 1
        picture(base / classes[label] / f"image_{counts[label]:04d}.jpg", label)


def caltech256(root, labels):
    base = root / "caltech256" / "256_ObjectCategories"
    classes = ["001.ak47", "002.american-flag", "003.motorbikes-101"]
    counts = [0, 0, 0]
    for label in labels:
        counts[label] += 1
        picture(base / classes[label] / f"{label + 1:03d}_{counts[label]:04d}.jpg", label)
    write(base / "002.american-flag" / "RENAME2", "a stray file, as the archive has one")


def stanford_cars(root, labels):
    from scipy.io import savemat

    base = root / "stanford_cars"
    names = ["AM General Hummer SUV 2000", "Audi S4 Sedan 2007", "Audi S4 Sedan 2012"]
    (base / "devkit").mkdir(parents=True)
    cells = np.empty((1, len(names)), dtype=object)
    cells[0] = names
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": cells})
    kind = [("bbox_x1", "O"), ("bbox_y1", "O"), ("bbox_x2", "O"), ("bbox_y2", "O"), ("class", "O"), ("fname", "O")]
    rows = np.empty((1, len(labels)), dtype=kind)
    for number, label in enumerate(labels):
        rows[0, number] = (1, 1, 9, 9, np.uint8(label + 1), f"{number + 1:05d}.jpg")
        picture(base / "cars_test" / f"{number + 1:05d}.jpg", label)
    savemat(base / "cars_test_annos_withlabels.mat", {"annotations": rows})


def pcam(root, labels):
    import h5py

    base = root / "pcam"
    base.mkdir(parents=True)
    with h5py.File(base / "camelyonpatch_level_2_split_test_x.h5", "w") as file:
        file["x"] = np.stack([flat(label, 96, 96) for label in labels])
    with h5py.File(base / "camelyonpatch_level_2_split_test_y.h5", "w") as file:
        file["y"] = np.array(labels, dtype=np.uint8).reshape(-1, 1, 1, 1)


def country211(root, labels):
    codes = ["AD", "BO", "XK"]
    for number, label in enumerate(labels):
        picture(root / "country211" / "test" / codes[label] / f"{number}.jpg", label)


WNIDS = ["n01443537", "n01629819", "n02012849"]  # goldfish, European fire salamander, crane (the bird)


def tiny_imagenet(root, labels):
    base = root / "tiny-imagenet-200"
    lines = [f"val_{number}.JPEG\t{WNIDS[label]}\t0\t0\t62\t62" for number, label in enumerate(labels)]
    write(base / "val" / "val_annotations.txt", "\n".join(lines) + "\n")
    write(base / "wnids.txt", "\n".join(WNIDS) + "\n")
    for number, label in enumerate(labels):
        picture(base / "val" / "images" / f"val_{number}.JPEG", label, (64, 64))
        picture(base / "train" / WNIDS[label] / "images" / f"{WNIDS[label]}_{number}.JPEG", label, (64, 64))


def wnid_folders(place):
    """A maker of one folder per WordNet id below `place`."""

    def make(root, labels):
        for number, label in enumerate(labels):
            picture(root / place / WNIDS[label] / f"{number}.JPEG", label)

    return make


def coop(folder, index, below, names):
    """A maker of CoOp's layout: images, each in the folder that `below` gives its class, and an index of three splits."""

    def make(root, labels):
        rows = []
        for number, label in enumerate(labels):
            file = f"{below.format(names[label])}{number}.jpg"
            picture(root / folder / file, label)
            rows.append([file, label, names[label]])
        every = [[f"{below.format(name)}t{label}.jpg", label, name] for label, name in enumerate(names)]
        write(root / index, json.dumps({"train": every, "val": every[:1], "test": rows}))

    return make


def class_folders(place, names):
    """A maker of one folder per class below `place`; with one name, of one folder for all."""

    def make(root, labels):
        for number, label in enumerate(labels):
            picture(root / place / names[label % len(names)] / f"{number}.png", label)

    return make


def imagenet_v2(root, labels):
    folders = ["1", "2", "10"]  # class numbers: sorted by value, not by text
    for number, label in enumerate(labels):
        picture(root / "imagenetv2-matched-frequency-format-val" / folders[label] / f"{number}.jpeg", label)
