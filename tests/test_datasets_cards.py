"""Every card of the field reads a miniature copy of its set, stored the way the authors store it."""

import shutil

import dataset_files as files
import numpy as np
import pytest
import torch

from robustcal.clip.prompts import sentences
from robustcal.datasets import presence
from robustcal.registry import datasets, load_plugin_file
from robustcal.types import Dataset, UserError

torch.set_num_threads(1)
LABELS = [2, 0, 1, 1, 2, 0]
GROUPED = sorted(LABELS)  # the order of sets that are stored class by class

#: card -> (maker, labels in the order of the dataset, first class names)
SETS = {
    "cifar10": (files.cifar10, LABELS, ["airplane", "automobile", "bird"]),
    "cifar100": (files.cifar100, LABELS, ["apple", "aquarium fish", "baby"]),
    "stl10": (files.stl10, LABELS, ["airplane", "bird", "car"]),
    "svhn": (files.svhn, LABELS, ["0", "1", "2"]),
    "fashion-mnist": (files.fashion_mnist, LABELS, ["t shirt top", "trouser", "pullover"]),
    "sun397": (files.sun397, GROUPED, ["abbey", "athletic field outdoor", "zen garden"]),
    "food101": (files.food101, GROUPED, ["apple pie", "baby back ribs", "waffles"]),
    "oxford-pets": (files.oxford_pets, LABELS, ["abyssinian", "american bulldog", "wheaten terrier"]),
    "flowers102": (files.flowers102, LABELS, ["pink primrose", "hard leaved pocket orchid", "canterbury bells"]),
    "dtd": (files.dtd, LABELS, ["banded", "polka dotted", "zigzagged"]),
    "eurosat": (files.eurosat, GROUPED, ["annual crop land", "a forest", "a sea or a lake"]),
    "fgvc-aircraft": (files.fgvc_aircraft, LABELS, ["boeing 707-320", "a340-200", "yak-42"]),
    "caltech101": (files.caltech101, GROUPED, ["faces easy", "leopards", "water lilly"]),
    "caltech256": (files.caltech256, GROUPED, ["ak47", "american flag", "motorbikes"]),
    "stanford-cars": (files.stanford_cars, LABELS, ["am general hummer suv", "audi s4 sedan", "audi s4 sedan"]),
    "pcam": (files.pcam, [1, 0, 0, 1], ["healthy lymph node tissue", "lymph node tumor tissue"]),
    "country211": (files.country211, GROUPED, ["Andorra", "Bolivia, Plurinational State of", "Kosovo"]),
    "tiny-imagenet": (files.tiny_imagenet, LABELS, ["goldfish", "european fire salamander", "crane"]),
    "imagenet": (files.wnid_folders("imagenet/val"), GROUPED, ["goldfish", "european fire salamander", "crane"]),
    "imagenet-a": (files.wnid_folders("imagenet-a"), GROUPED, ["goldfish", "european fire salamander", "crane"]),
    "imagenet-r": (files.wnid_folders("imagenet-r"), GROUPED, ["goldfish", "european fire salamander", "crane"]),
    "imagenet-o": (files.wnid_folders("imagenet-o"), GROUPED, ["goldfish", "european fire salamander", "crane"]),
    "imagenet-sketch": (files.wnid_folders("sketch"), GROUPED, ["goldfish", "european fire salamander", "crane"]),
    "coop-caltech101": (
        files.coop("caltech-101/101_ObjectCategories", "caltech-101/split_zhou_Caltech101.json", "{}/", ["Faces", "crocodile_head", "car_side"]),
        LABELS, ["Faces", "crocodile head", "car side"],
    ),
    "coop-oxford-pets": (
        files.coop("oxford_pets/images", "oxford_pets/split_zhou_OxfordPets.json", "{}_", ["abyssinian", "american_bulldog", "boxer"]),
        LABELS, ["abyssinian", "american bulldog", "boxer"],
    ),
    "coop-stanford-cars": (
        files.coop("stanford_cars", "stanford_cars/split_zhou_StanfordCars.json", "cars_test/", ["2000 AM General Hummer SUV", "2012 Acura RL Sedan", "2012 Acura TL Sedan"]),
        LABELS, ["2000 AM General Hummer SUV", "2012 Acura RL Sedan", "2012 Acura TL Sedan"],
    ),
    "coop-flowers102": (
        files.coop("oxford_flowers/jpg", "oxford_flowers/split_zhou_OxfordFlowers.json", "image_0", ["pink primrose", "globe thistle", "blanket flower"]),
        LABELS, ["pink primrose", "globe thistle", "blanket flower"],
    ),
    "coop-food101": (
        files.coop("food-101/images", "food-101/split_zhou_Food101.json", "{}/", ["apple_pie", "baby_back_ribs", "baklava"]),
        LABELS, ["apple pie", "baby back ribs", "baklava"],
    ),
    "coop-sun397": (
        files.coop("sun397/SUN397", "sun397/split_zhou_SUN397.json", "a/{}/", ["abbey", "airplane_cabin", "alley"]),
        LABELS, ["abbey", "airplane cabin", "alley"],
    ),
    "coop-dtd": (
        files.coop("dtd/images", "dtd/split_zhou_DescribableTextures.json", "{}/", ["banded", "polka-dotted", "zigzagged"]),
        LABELS, ["banded", "polka-dotted", "zigzagged"],
    ),
    "coop-eurosat": (
        files.coop("eurosat/2750", "eurosat/split_zhou_EuroSAT.json", "{}/", ["Annual Crop Land", "Forest", "Sea or Lake"]),
        LABELS, ["Annual Crop Land", "Forest", "Sea or Lake"],
    ),
    "coop-ucf101": (
        files.coop("ucf101/UCF-101-midframes", "ucf101/split_zhou_UCF101.json", "{}/v_", ["Apply_Eye_Makeup", "Archery", "Yo_Yo"]),
        LABELS, ["Apply Eye Makeup", "Archery", "Yo Yo"],
    ),
    "objectnet": (files.class_folders("objectnet-1.0/images", ["air_freshener", "banana", "zipper"]), GROUPED, ["air freshener", "banana", "zipper"]),
    "ood-textures": (files.class_folders("dtd/dtd/images", ["banded", "polka-dotted", "zigzagged"]), GROUPED, ["banded", "polka dotted", "zigzagged"]),
    "imagenet-v2": (files.imagenet_v2, GROUPED, ["goldfish", "great white shark", "brambling"]),
}
FIELD = [name for name, card in datasets.cards().items() if card["source"] in ("torchvision", "folder", "coco", "coop")]


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """An empty data root, no network, and no published checksums: miniature files cannot have those."""
    monkeypatch.setenv("ROBUSTCAL_DATA", str(tmp_path))
    monkeypatch.setenv("ROBUSTCAL_OFFLINE", "1")
    monkeypatch.setattr("torchvision.datasets.utils.check_md5", lambda *_, **__: True)
    return tmp_path


def colours_of(labels, name):
    """The flat colours that the makers give to labels, in [0, 1]."""
    if name == "fashion-mnist":
        return torch.tensor([[40 * label] * 3 for label in labels]) / 255
    return torch.from_numpy(files.COLOURS[labels]).float() / 255


@pytest.mark.parametrize("name", SETS)
def test_the_real_loading_code_reads_the_real_format(name, root):
    if name == "pcam":
        pytest.importorskip("h5py")
    make, labels, classnames = SETS[name]
    make(root, LABELS if name != "pcam" else labels)
    present, hint = presence.availability(datasets.cards()[name])
    assert present and str(root) in hint
    data = datasets.build(f"{name}:check=false")
    assert isinstance(data, Dataset)
    assert data.labels.tolist() == labels and data.labels.dtype == np.int64
    assert list(data.classnames)[: len(classnames)] == classnames
    assert data.resolution == 224 and data.task == "single" and data.identity
    assert all(i.startswith(f"{name}/{datasets.cards()[name]['split']}/") for i in data.ids)
    assert len(set(data.ids)) == len(labels)
    order = [3, 0, 2]
    batch = data.read(order)
    assert batch.images.shape == (3, 3, 224, 224) and batch.labels.tolist() == [labels[i] for i in order]
    expected = colours_of([labels[i] for i in order], name)
    assert torch.allclose(batch.images.mean(dim=(2, 3)), expected, atol=0.02)


@pytest.mark.parametrize("name", [name for name in SETS if "native" in datasets.cards()[name]])
def test_the_native_resolution_is_another_row(name, root):
    if name == "pcam":
        pytest.importorskip("h5py")
    SETS[name][0](root, LABELS if name != "pcam" else SETS[name][1])
    native = datasets.build(f"{name}:check=false:resolution=native")
    side = datasets.cards()[name]["native"]
    assert native.resolution == side and native.read([0]).images.shape == (1, 3, side, side)
    assert native.identity != datasets.build(f"{name}:check=false").identity


def test_sets_of_mixed_sizes_have_no_native_resolution(root):
    files.food101(root, LABELS)
    with pytest.raises(UserError, match="no native resolution"):
        datasets.build("food101:check=false:resolution=native")


@pytest.mark.parametrize("name", FIELD)
def test_a_missing_set_says_what_to_put_where(name, root):
    present, hint = presence.availability(datasets.cards()[name])
    assert not present and str(root) in hint
    with pytest.raises(UserError, match=f"dataset '{name}' is not here: missing ") as caught:
        datasets.build(name)
    assert str(root) in str(caught.value) and "\n" not in str(caught.value) and "{root}" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in SETS if name != "pcam"])
def test_other_counts_than_the_card_are_refused(name, root):
    SETS[name][0](root, LABELS)
    with pytest.raises(UserError, match=rf"dataset '{name}' has \d+ (images|classes) in .* its card says \d+"):
        datasets.build(name)


def test_counts_that_agree_with_the_card_pass(root):
    files.cifar10(root, [0, 1, 2, 3, 4] * 2000)
    assert len(datasets.build("cifar10").labels) == 10000
    files.eurosat(root, LABELS)
    with pytest.raises(UserError, match="3 classes in .* its card says 10"):
        datasets.build("eurosat")


def test_damaged_copies_are_reported(root, monkeypatch):
    files.cifar10(root, LABELS)
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(b"\x80\x02broken")
    with pytest.raises(UserError, match="'cifar10' in .* is damaged or incomplete"):
        datasets.build("cifar10:check=false")
    files.oxford_pets(root, LABELS)
    (root / "oxford-iiit-pet" / "images" / "american_bulldog_2.jpg").write_bytes(b"junk")
    pets = datasets.build("oxford-pets:check=false")
    with pytest.raises(UserError, match=r"american_bulldog_2.jpg' of dataset 'oxford-pets' cannot be read"):
        pets.read([2])
    files.caltech101(root, LABELS)
    folder = root / "caltech101" / "101_ObjectCategories" / "Leopards"
    whole = (folder / "image_0001.jpg").read_bytes()
    (folder / "image_0001.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"Leopards/image_0001.jpg' of dataset 'caltech101' cannot be read"):
        datasets.build("caltech101:check=false").read([2])


def test_a_wrong_checksum_is_refused(root, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("ROBUSTCAL_DATA", str(root))
    monkeypatch.setenv("ROBUSTCAL_OFFLINE", "1")
    files.cifar10(root, LABELS)
    with pytest.raises(UserError, match="'cifar10' in .* is damaged or incomplete"):
        datasets.build("cifar10:check=false")


@pytest.mark.parametrize("name, folder", [("ood-inaturalist", "iNaturalist"), ("ood-sun", "SUN"), ("ood-places", "Places")])
def test_unknown_images_lie_in_one_folder_and_stand_under_other_names(name, folder, root):
    files.class_folders(folder, ["images"])(root, LABELS)
    files.wnid_folders("imagenet/val")(root, LABELS)
    alone = datasets.build(f"{name}:check=false")
    assert alone.labels.tolist() == [0] * 6 and list(alone.classnames) == ["unknown"]
    assert torch.allclose(alone.read([3]).images.mean((2, 3)), colours_of([LABELS[3]], name), atol=0.02)
    with pytest.raises(UserError, match=f"'{name}' has 6 images"):
        datasets.build(f"ood:images={name}:classes=imagenet")


def test_the_splits_of_coop(root):
    make, labels, _ = SETS["coop-ucf101"]
    make(root, labels)
    train, plain = datasets.build("coop-ucf101:split=train:check=false"), datasets.build("coop-ucf101:check=false:prompts=plain")
    assert train.labels.tolist() == [0, 1, 2] and train.ids[0] == "coop-ucf101/train/Apply_Eye_Makeup/v_t0.jpg"
    assert sentences(plain.classnames, plain.templates)[2] == ["a photo of a Yo Yo."]
    index = root / "ucf101/split_zhou_UCF101.json"
    for text, told in (
        ('{"train": [], "val": []}', "is no index"), ("[1", "is no index"), ('{"train": [["a.jpg", 1, "A"]], "val": [], "test": []}', "not 0 to 0"),
        ('{"train": [["a.jpg", 0, "A"], ["b.jpg", 0, "B"]], "val": [], "test": []}', "both 'A' and 'B'"),
        ('{"train": [], "val": [], "test": [["../../secret.jpg", 0, "A"]]}', "outside the images"),
        ('{"train": [], "val": [], "test": [["a.jpg", "0", "A"]]}', "is not .file, label, class name"),
    ):  # fmt: skip
        index.write_text(text)
        with pytest.raises(UserError, match=told):
            datasets.build("coop-ucf101:check=false")


def test_aircraft_have_the_names_and_prompt_of_coop(root):
    files.fgvc_aircraft(root, LABELS)
    data = datasets.build("fgvc-aircraft:check=false:prompts=coop")
    assert sentences(data.classnames, data.templates)[0] == ["a photo of a 707-320, a type of aircraft."]


def test_splits_are_known_by_name(root):
    files.tiny_imagenet(root, LABELS)
    train = datasets.build("tiny-imagenet:split=train:check=false")
    assert train.labels.tolist() == GROUPED and train.ids[0].startswith("tiny-imagenet/train/n01443537/images/")
    with pytest.raises(UserError, match="has no split 'test'; it has: val, train"):
        datasets.build("tiny-imagenet:split=test")
    with pytest.raises(UserError, match="3 classes in .*, its card says 200"):
        datasets.build("tiny-imagenet:split=train")
    files.wnid_folders("imagenet-a")(root, LABELS)
    with pytest.raises(UserError, match="'imagenet-a' has no split 'train'; it has: all"):
        datasets.build("imagenet-a:split=train")


def test_tiny_imagenet_sorted_into_class_folders_reads_alike(root):
    files.tiny_imagenet(root, LABELS)
    released = datasets.build("tiny-imagenet:check=false")
    val = root / "tiny-imagenet-200" / "val"
    for number, label in enumerate(LABELS):
        (val / files.WNIDS[label]).mkdir(exist_ok=True)
        (val / "images" / f"val_{number}.JPEG").rename(val / files.WNIDS[label] / f"val_{number}.JPEG")
    (val / "images").rmdir()
    (val / "val_annotations.txt").unlink()
    arranged = datasets.build("tiny-imagenet:check=false")
    assert arranged.labels.tolist() == GROUPED and arranged.classnames == released.classnames


def test_prompt_sets(root):
    files.wnid_folders("imagenet/val")(root, LABELS)
    assert datasets.build("imagenet:check=false").classnames[2] == "crane"
    assert datasets.build("imagenet:check=false:prompts=clip").classnames[2] == "crane bird"
    assert datasets.build("imagenet:check=false:prompts=torchvision").classnames[2] == "crane bird"
    with pytest.raises(UserError, match="no prompt set 'own'; there are: card, clip, torchvision"):
        datasets.build("imagenet:check=false:prompts=own")
    files.country211(root, LABELS)
    assert datasets.build("country211:check=false:prompts=short").classnames[1] == "Bolivia"
    files.stanford_cars(root, LABELS)
    assert datasets.build("stanford-cars:check=false:prompts=year").classnames[1] == "audi s4 sedan 2007"


def test_the_misspelt_prompt_is_a_switch(root):
    pytest.importorskip("h5py")
    files.pcam(root, [0, 1])
    assert list(datasets.build("pcam:check=false").templates) == ["This is a photo of {}."]
    published = datasets.build("pcam:check=false:prompts=published-typo")
    assert sentences(published.classnames, published.templates) == [
        ["Tthis is a photo of healthy lymph node tissue."], ["This is a photo of lymph node tumor tissue."],
    ]  # fmt: skip


def test_an_unknown_folder_has_no_name(root):
    files.wnid_folders("imagenet/val")(root, LABELS)
    shutil.copytree(root / "imagenet/val" / files.WNIDS[0], root / "imagenet/val" / "n99999999")
    with pytest.raises(UserError, match="card 'imagenet' knows no name for class 'n99999999'"):
        datasets.build("imagenet:check=false")


# -- a user's own card ---------------------------------------------------------------------------------------------


def test_a_card_of_ones_own_is_one_file(root, tmp_path, monkeypatch):
    files.wnid_folders("birds/test")(root, LABELS)
    text = (
        'title = "Birds"\nsource = "folder"\nfolder = "birds/test"\nsplit = "test"\nclasses = 3\nsize = 6\n'
        'resolution = 64\npreprocess = "stretch"\ntemplates = ["a bird: {}"]\nclassnames = ["ibis", "owl", "wren"]\n'
    )
    (tmp_path / "my_birds.toml").write_text(text)
    monkeypatch.setattr(datasets, "_cards", dict(datasets.cards()))
    load_plugin_file(tmp_path / "my_birds.toml")
    data = datasets.build("my-birds")
    assert (data.name, data.resolution, list(data.classnames)) == ("my-birds", 64, ["ibis", "owl", "wren"])
    assert data.ids[0] == "my-birds/test/n01443537/1.JPEG"
    assert len(data.labels) == 6
    for damaged, message in (("source = 'nowhere'", "unknown source 'nowhere'"), ("source = ", "is not TOML")):
        (tmp_path / "bad.toml").write_text(damaged)
        with pytest.raises(UserError, match=message):
            load_plugin_file(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    "templates, expected",
    [
        ('[["my ibis"], ["an {}", "the {c}"], ["wrens"]]', [["my ibis"], ["an owl", "the owl"], ["wrens"]]),
        ('{n01629819 = "an {}", n01443537 = ["my ibis"], n02012849 = ["wrens", "a {}"]}', [["my ibis"], ["an owl"], ["wrens", "a wren"]]),
        ('[["a"], ["b"]]', "lists prompts for 2 classes, but the data have 3 classes"),
        ('[["a"], ["b"], []]', "class 'n02012849' holds no prompt template"),
        ('[["a"], ["b"], [" "]]', "prompt template ' ' in card 'birds', class 'n02012849'"),
        ('[["a"], ["b"], ["{} {}"]]', "must hold the class name once"),
        ('{n01629819 = "an {}"}', r"has no prompts for class 'n01443537' \(2 such of 3\)"),
    ],
)
def test_a_card_may_say_prompts_per_class(root, tmp_path, monkeypatch, templates, expected):
    files.wnid_folders("birds/test")(root, LABELS)
    text = f'source = "folder"\nfolder = "birds/test"\nclassnames = ["ibis", "owl", "wren"]\ntemplates = {templates}\n'
    (tmp_path / "birds.toml").write_text(text)
    monkeypatch.setattr(datasets, "_cards", dict(datasets.cards()))
    load_plugin_file(tmp_path / "birds.toml")
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            datasets.build("birds")
    else:
        data = datasets.build("birds")
        assert sentences(data.classnames, data.templates) == expected


def test_the_source_alone_is_no_dataset():
    with pytest.raises(UserError, match="works through cards"):
        datasets.build("torchvision")
    with pytest.raises(UserError, match="needs a folder"):
        datasets.build("folder")
    with pytest.raises(UserError, match="needs an annotation file"):
        datasets.build("coco")
