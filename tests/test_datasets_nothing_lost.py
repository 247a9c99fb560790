"""What is there is read, or named and counted, or refused: one case for each way in which samples used to get lost."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from small_sets import coco, pack, part, picture, sample, tar_bytes, tree

from robustcal.datasets.lines import read_lines, whole_number
from robustcal.registry import datasets
from robustcal.types import UserError

torch.set_num_threads(1)


def labelled(spec):
    """(label, class name) of each sample."""
    data = datasets.build(spec)
    return [(int(label), data.classnames[label]) for label in data.labels]


def refused(spec, message):
    with pytest.raises(UserError, match=message) as caught:
        datasets.build(spec)
    assert "\n" not in str(caught.value)


# -- tar packs -----------------------------------------------------------------------------------------------------


def test_keys_with_dots_are_keys(tmp_path):
    spec = pack(tmp_path / "p", [sample("s0", 0) + sample("img.v2.0001", 1) + sample("img.v2.0002", 1)])
    data = datasets.build(spec)
    assert data.ids == ["p/test/s0", "p/test/img.v2.0001", "p/test/img.v2.0002"] and data.labels.tolist() == [0, 1, 1]
    assert not data.notes


def test_a_key_that_comes_twice_is_refused(tmp_path):
    refused(pack(tmp_path / "p", [sample("s0", 0) + sample("s0", 1)]), "0.tar' holds 's0.png' twice")
    refused(pack(tmp_path / "q", [[*sample("s0", 0), ("s0.PNG", picture(3))]]), "holds 's0.PNG' twice")


def test_shards_that_nobody_counts_are_refused(tmp_path):
    shards = [sample("s0", 0), sample("s1", 1), sample("s2", 1)]
    spec = pack(tmp_path / "p", shards, said=1)
    refused(spec, "holds 3 shards, but nshards.txt says 1; not counted: 1.tar, 2.tar")
    (tmp_path / "p/test/nshards.txt").write_text("3")
    assert labelled(spec) == [(0, "cat"), (1, "dog"), (1, "dog")]
    (tmp_path / "p/test/0.tar.gz").write_bytes(b"a copy")
    refused(spec, "holds shard 0 twice: 0.tar, 0.tar.gz")


def test_two_archives_in_one_file_are_refused(tmp_path):
    spec = pack(tmp_path / "p", [sample("s0", 0)])
    (tmp_path / "p/test/0.tar").write_bytes(tar_bytes(sample("s0", 0)) + tar_bytes(sample("s1", 1)))
    refused(spec, "0.tar' goes on behind its end")


def test_members_that_are_no_samples_are_counted(tmp_path):
    extra = [("s0.mask.png", picture(7)), ("s0.json", b"{}"), ("README.txt", b"hello"), ("s0.txt", b"a cat"), ("x", b"")]
    mac = [("._s0.png", b"junk"), ("__MACOSX/._s0.cls", b"junk"), ("link.png", "s0.png")]
    data = datasets.build(pack(tmp_path / "p", [sample("s0", 0) + extra + mac]))
    place = tmp_path / "p/test/0.tar"
    assert data.ids == ["p/test/s0"] and sorted(data.notes) == [
        f"further members of a sample, not read: 1, such as {place}:s0.mask.png",
        f"hidden members, not read: 2, such as {place}:._s0.png",
        f"links and special files in shards, not read: 1, such as {place}:link.png",
        f"members of suffix .json, not read: 1, such as {place}:s0.json",
        f"members of suffix .txt, not read: 2, such as {place}:s0.txt",
        f"members without a suffix, not read: 1, such as {place}:x",
    ]


def test_two_images_are_counted_and_two_labels_refused(tmp_path):
    data = datasets.build(pack(tmp_path / "p", [[*sample("s0", 0, seed=5), ("s0.webp", picture(6, "WEBP"))]]))
    assert data.content(0) == picture(5)
    assert data.notes == (f"further images of a sample, of which the first is read: 1, such as {tmp_path}/p/test/0.tar:s0.webp",)
    refused(pack(tmp_path / "q", [[*sample("s0", 0), ("s0.npy", b"")]]), "'s0' of shard .* has two labels, .cls and .npy")


@pytest.mark.parametrize("text", ["\u00b2", "\u0967", "-1", "1.0", "", "9" * 5000])
def test_a_label_is_ascii_digits(tmp_path, text):
    refused(pack(tmp_path / "p", [[("s0.png", picture(0)), ("s0.cls", text.encode())]]), "s0' of shard .* has label '")
    refused(pack(tmp_path / "q", [sample("s0", 0)]) + ":resolution=\u00b2", "resolution '\u00b2' is not a number")
    refused(pack(tmp_path / "r", [sample("s0", 0)], said=text or "x"), "nshards.txt' says")


def test_whole_numbers():
    assert [whole_number(text) for text in ("0", "007", "12", "\u0661", "\u00bd", " 1", "+1", "")] == [0, 7, 12] + [None] * 5


# -- text files whose line number is a label -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, lines",
    [
        (b"cat\ndog\n", ["cat", "dog"]),
        (b"cat\ndog", ["cat", "dog"]),
        (b"\xef\xbb\xbfcat\r\ndog\r\n", ["cat", "dog"]),
        ("a\u2028b\x0bc\x85d\x1ce\nf\ufeff\n".encode(), ["a\u2028b\x0bc\x85d\x1ce", "f\ufeff"]),
        (b"cyclamen \n dog\t\n", ["cyclamen ", " dog\t"]),
        (b"\ncat\n\ndog\n\n", ["", "cat", "", "dog", ""]),
    ],
)
def test_lines_are_kept_as_they_are(tmp_path, data, lines):
    (tmp_path / "names.txt").write_bytes(data)
    assert read_lines(tmp_path / "names.txt", "names") == lines


@pytest.mark.parametrize("data, message", [(b"\n \n", "is empty"), (b"a\rb\n", "carriage return"), (b"\xff\xfea", "UTF-8")])
def test_text_that_is_no_list_is_refused(tmp_path, data, message):
    (tmp_path / "names.txt").write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_lines(tmp_path / "names.txt", "names")


def test_an_empty_name_keeps_its_label_and_is_told(tmp_path):
    data = datasets.build(pack(tmp_path / "p", [sample("s0", 0) + sample("s1", 2)], names=b"cat\n\ndog\n"))
    assert list(data.classnames) == ["cat", "", "dog"] and data.labels.tolist() == [0, 2]
    assert data.notes == ("classes without a name, whose prompts say nothing: 1, label 1",)


def test_empty_lines_at_the_end_are_classes_only_where_a_label_says_so(tmp_path):
    data = datasets.build(pack(tmp_path / "p", [sample("s0", 1)], names=b"cat\ndog\n\n\n"))
    assert list(data.classnames) == ["cat", "dog"]
    assert data.notes == ("empty lines at the end of classnames.txt, no classes: 2, such as line 3",)
    data = datasets.build(pack(tmp_path / "q", [sample("s0", 2)], names=b"cat\ndog\n\n\n"))
    assert list(data.classnames) == ["cat", "dog", ""] and data.notes[-1].endswith("label 2")


def test_names_that_several_classes_share_are_told(tmp_path):
    data = datasets.build(pack(tmp_path / "p", [sample("s0", 1)], names=b"crane\ndog\ncrane\n"))
    assert data.notes == ("names that several classes share: 1, crane",)


# -- folders -------------------------------------------------------------------------------------------------------

TWO = {"cat/1.png": picture(0), "dog/1.png": picture(1)}


def test_hidden_folders_and_thumbnails_are_no_samples(tmp_path):
    shadows = ["cat/.ipynb_checkpoints/1-checkpoint.png", "cat/.thumbnails/1.png", "cat/@eaDir/1.png/SYNO_THUMB.png",
               "cat/._1.png", "__MACOSX/cat/._1.png", ".git/a.png"]  # fmt: skip
    data = datasets.build(tree(tmp_path / "f", TWO | dict.fromkeys(shadows, picture(2))))
    assert data.ids == ["f/cat/1.png", "f/dog/1.png"] and list(data.classnames) == ["cat", "dog"]
    assert data.notes == ("images in hidden files and folders, not read: 6, such as .git/a.png",)


def test_files_of_other_suffixes_are_read_or_counted(tmp_path):
    more = {"cat/2.jfif": picture(2, "JPEG"), "cat/3.HEIC": b"?", "cat/4.heic": b"?", "dog/notes": b"?", "stray.png": picture(3)}
    data = datasets.build(tree(tmp_path / "f", TWO | more))
    assert data.ids == ["f/cat/1.png", "f/cat/2.jfif", "f/dog/1.png"] and list(data.notes) == [
        "images beside the class folders, not read: 1, such as stray.png",
        "files of suffix .heic, not read: 2, such as cat/3.HEIC",
        "files without a suffix, not read: 1, such as dog/notes",
    ]
    refused(tree(tmp_path / "g", {"cat/1.heic": b"?"}), "class folder .* has no images .* suffix .heic, not read: 1")


def test_sub_folders_belong_to_their_class_and_are_told(tmp_path):
    data = datasets.build(tree(tmp_path / "f", TWO | {"cat/dog/2.png": picture(2)}))
    assert data.ids == ["f/cat/1.png", "f/cat/dog/2.png", "f/dog/1.png"] and data.labels.tolist() == [0, 0, 1]
    assert data.notes == ("images in sub-folders, read as the class of the folder above: 1, such as cat/dog/2.png",)


def test_links_upwards_do_not_multiply_images(tmp_path):
    spec = tree(tmp_path / "f", TWO)
    (tmp_path / "f/cat/again").symlink_to("..")
    (tmp_path / "f/cat/self").symlink_to(".")
    (tmp_path / "f/loop").symlink_to(".")
    (tmp_path / "f/dog/high").symlink_to(tmp_path.parent)
    (tmp_path / "f/dog/odd").symlink_to("odd")
    data = datasets.build(spec)
    assert data.ids == ["f/cat/1.png", "f/dog/1.png"]
    assert data.notes[0] == "links to a folder above, not followed: 4, such as loop"


def test_a_folder_that_is_reached_twice_is_refused(tmp_path):
    spec = tree(tmp_path / "f", TWO)
    (tmp_path / "f/cat/extra").symlink_to(tmp_path / "f/dog")
    refused(spec, "'.*dog' and '.*cat/extra' are one folder; its images would count twice")
    (tmp_path / "f/cat/extra").unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/9.png").write_bytes(picture(9))
    (tmp_path / "f/eel").symlink_to(tmp_path / "elsewhere")
    assert datasets.build(spec).ids == ["f/cat/1.png", "f/dog/1.png", "f/eel/9.png"]


def test_a_pipe_is_not_opened(tmp_path):
    spec = tree(tmp_path / "f", TWO)
    os.mkfifo(tmp_path / "f/cat/2.png")
    data = datasets.build(spec)
    assert len(data) == 2 and data.notes == ("neither files nor folders, not read: 1, such as cat/2.png",)


def test_numbered_folders_are_sorted_as_numbers(tmp_path):
    files = {f"{number}/1.png": picture(number) for number in (0, 1, 2, 10)}
    spec = tree(tmp_path / "f", files | {"classnames.txt": b"zero\none\ntwo\nten\n"})
    data = datasets.build(spec)
    assert [(i.split("/")[1], data.classnames[k]) for i, k in zip(data.ids, data.labels)] == [
        ("0", "zero"), ("1", "one"), ("2", "two"), ("10", "ten"),
    ]  # fmt: skip
    tree(tmp_path / "f", {"01/1.png": picture(3)})
    refused(spec, "two class folders in .* are one number; rename them: 0, 01, 1")


def test_folders_without_words_need_names(tmp_path):
    numbers = {f"{number}/1.png": picture(number) for number in (0, 1, 2)}
    refused(tree(tmp_path / "f", numbers), r"\(0, 1, 2 ...\) are no words for a prompt; name them in 'classnames.txt'")
    refused(tree(tmp_path / "g", {"n01443537/1.png": picture(0), "n01629819/1.png": picture(1)}), "are no words")
    digits = numbers | {"zeroshot_classification_templates.txt": b"the digit {c}\n"}
    assert labelled(tree(tmp_path / "h", digits)) == [(0, "0"), (1, "1"), (2, "2")]


def test_names_in_another_order_than_the_folders_are_refused(tmp_path):
    refused(tree(tmp_path / "f", TWO | {"classnames.txt": b"dog\ncat\n"}), "line 1 of .* is 'dog', but folder 1 .* is 'cat'")


def test_a_list_of_annotations_is_counted_too(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTCAL_DATA", str(tmp_path))
    files = {f"tiny-imagenet-200/val/images/{n}.png": picture(n) for n in range(3)}
    lines = "0.png\tn01443537\n1.png\tn01629819\n"
    annotations = "tiny-imagenet-200/val/val_annotations.txt"
    tree(tmp_path, files | {annotations: lines.encode(), "tiny-imagenet-200/wnids.txt": b""})
    data = datasets.build("tiny-imagenet:check=false")
    assert data.notes == ("images that val_annotations.txt does not list, not read: 1, such as 2.png",)
    (tmp_path / annotations).write_text(lines + "0.png\tn01629819\n")
    refused("tiny-imagenet:check=false", "val_annotations.txt' lists '0.png' more than once")


# -- parquet -------------------------------------------------------------------------------------------------------


def rows(*labels):
    return [(picture(label), label) for label in labels]


def test_parts_must_all_be_there_once(tmp_path):
    for number in range(3):
        part(tmp_path / f"d/data/test-{number:05d}-of-00003.parquet", rows(0, 1))
    spec = f"huggingface:{tmp_path / 'd'}"
    assert labelled(spec) == [(0, "cat"), (1, "dog")] * 3
    (tmp_path / "d/data/test-00001-of-00003.parquet").rename(tmp_path / "away")
    refused(spec, "lack part 1 of 3")
    (tmp_path / "away").rename(tmp_path / "d/data/test-00002-of-00003-copy.parquet")
    refused(spec, "lack part 1 of 3")
    part(tmp_path / "d/data/test-00001-of-00003.parquet", rows(0))
    refused(spec, "hold a part twice")
    part(tmp_path / "e/test-00000-of-00001.parquet", rows(0))
    part(tmp_path / "e/test-00001-of-00002.parquet", rows(0))
    refused(f"huggingface:{tmp_path / 'e'}", "are parts of different wholes")
    for number in (0, 1, 3):
        part(tmp_path / f"g/test/{number:04d}.parquet", rows(0))
    refused(f"huggingface:{tmp_path / 'g'}", "lack part 2 of 3")


def test_configurations_are_not_mixed(tmp_path):
    part(tmp_path / "d/small/test-00000-of-00001.parquet", rows(0))
    part(tmp_path / "d/large/test-00000-of-00001.parquet", rows(0, 1))
    part(tmp_path / "d/.cache/test-00000-of-00001.parquet", rows(0, 1))
    part(tmp_path / "d/large/test-clean-00000-of-00001.parquet", rows(1))
    refused(f"huggingface:{tmp_path / 'd'}", "is in several folders, large, small; choose one by config=")
    assert labelled(f"huggingface:{tmp_path / 'd'}:config=large") == [(0, "cat"), (1, "dog")]


def test_every_part_names_its_classes_alike(tmp_path):
    part(tmp_path / "d/test-00000-of-00002.parquet", rows(0, 1))
    part(tmp_path / "d/test-00001-of-00002.parquet", rows(0, 1), names=("dog", "cat"))
    refused(f"huggingface:{tmp_path / 'd'}", "00001-of-00002.parquet' and .* differently: 'dog' here, 'cat' there")
    part(tmp_path / "d/test-00001-of-00002.parquet", rows(0, 1), names=("cat", "dog", "eel"))
    refused(f"huggingface:{tmp_path / 'd'}", "differently: '3 classes' here, '2 classes' there")
    part(tmp_path / "d/test-00001-of-00002.parquet", rows(0, 1), names=())
    refused(f"huggingface:{tmp_path / 'd'}", "differently: 'no names' here, 'cat' there")


# -- COCO ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more, message",
    [
        ({"images": [{"id": 0, "file_name": "2.png"}]}, "the id 0 stands for two of them, image '0.png' and image '2.png'"),
        ({"images": [{"id": 7, "file_name": "0.png"}]}, "two images are one file, '0.png'"),
        ({"categories": [{"id": 1, "name": "lorry"}]}, "the id 1 stands for two of them, category 'cat'"),
        ({"categories": [{"id": 3, "name": None}]}, "category 3 has the name None, not a text"),
        ({"categories": [{"id": "\u00b2", "name": "eel"}]}, "the id '\u00b2' is not a whole number"),
        ({"images": [{"id": 1.5, "file_name": "2.png"}]}, "the id 1.5 is not a whole number"),
        ({"annotations": [{"image_id": True, "category_id": 1}]}, "the id True is not a whole number"),
    ],
)
def test_an_id_stands_for_one_thing(tmp_path, more, message):
    refused(coco(tmp_path / "c", **more), message)


def test_a_repeated_key_of_json_is_refused(tmp_path):
    spec = coco(tmp_path / "c")
    text = (tmp_path / "c/a.json").read_text()
    (tmp_path / "c/a.json").write_text(text[:-1] + ', "images": []}')
    refused(spec, "the key 'images' comes twice in one object")


def test_what_a_coco_set_holds_beside_its_samples_is_told(tmp_path):
    root = [{"id": 0, "name": "pets", "supercategory": "none"}, {"id": 3, "name": "eel", "supercategory": "pets"}]
    spec = coco(tmp_path / "c", names=((1, "cat"), (2, "dog"), (9, "dog")), categories=root)
    (tmp_path / "c/9.png").write_bytes(picture(9))
    data = datasets.build(spec)
    assert list(data.classnames) == ["pets", "cat", "dog", "eel", "dog"] and list(data.notes) == [
        "categories that are the supercategory of others, a class of their own here: 1, such as pets",
        "categories that no image has, a class all the same: 2, such as eel",
        "images that the annotation file does not list, not read: 1, such as 9.png",
        "names that several classes share: 1, dog",
    ]


def test_a_coco_annotation_id_that_comes_twice_is_counted_and_both_are_read(tmp_path):
    rows = [{"id": 7, "image_id": 0, "category_id": 2}, {"id": 7, "image_id": 1, "category_id": 1}]
    data = datasets.build(coco(tmp_path / "c", annotations=rows))
    assert data.labels.tolist() == [[1, 1], [1, 1]]
    assert list(data.notes) == ["annotation ids that stand for several annotations, all of which are read: 1, such as 7"]


def test_files_beside_the_class_folders_are_counted(tmp_path):
    spec = tree(tmp_path / "f", {"cat/1.png": picture(1), "dog/2.png": picture(2), "README.md": b"hello", "classnames.txt": b"cat\ndog\n"})
    assert list(datasets.build(spec).notes) == ["files beside the class folders, not read: 1, such as README.md"]


# -- modes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, suffix, mode", [(np.float32, "tif", "F"), (np.int32, "tif", "I"), (np.float32, "tiff", "F")])
def test_pictures_without_a_range_are_refused_by_name(tmp_path, dtype, suffix, mode):
    (tmp_path / "f/a").mkdir(parents=True)
    Image.fromarray(np.linspace(0, 255, 64).reshape(8, 8).astype(dtype)).save(tmp_path / f"f/a/0.{suffix}")
    data = datasets.build(f"folder:{tmp_path / 'f'}")
    with pytest.raises(UserError, match=rf"a/0.{suffix}' .* cannot be read: .* \(mode {mode}\) have no defined range"):
        data.read([0])


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_have_a_range(tmp_path, suffix):
    (tmp_path / "f/a").mkdir(parents=True)
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    if suffix == "pgm":
        (tmp_path / "f/a/0.pgm").write_bytes(b"P5 8 8 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(tmp_path / f"f/a/0.{suffix}")
    got = datasets.build(f"folder:{tmp_path / 'f'}:resolution=native").pixels(0)
    assert np.array_equal(got[..., 0], np.round(values / 257)) and np.array_equal(got[..., 0], got[..., 2])
