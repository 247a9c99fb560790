"""Hostile files are refused, and nothing in them runs. Checkpoints themselves: see test_weights.py."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_clip import write_model

from robustcal import registry
from robustcal.cli import main, parser
from robustcal.types import UserError


def png(side=8) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(data, "png")
    return data.getvalue()


def bomb_png(side=60_000) -> bytes:
    """A valid PNG of 60 000 x 60 000 pixels in a few kilobytes: 10 GB when decoded."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10_000)) + chunk(b"IEND", b"")


def pack(folder: Path, members: dict[str, bytes], gzipped=False) -> Path:
    """A webdataset pack of one shard with these members, whatever their names."""
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_text("cat\ndog\n")
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}\n")
    (folder / "test" / "nshards.txt").write_text("1\n")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    raw = data.getvalue()
    (folder / "test" / ("0.tar.gz" if gzipped else "0.tar")).write_bytes(gzip.compress(raw) if gzipped else raw)
    return folder


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ["../../evil", "/tmp/robustcal-evil/x", "a/../../../evil", "/../../../../../../../../tmp/robustcal-evil/y"])
@pytest.mark.parametrize("gzipped", [False, True])
def test_names_in_an_archive_lead_nowhere(tmp_path, name, gzipped):
    folder = pack(tmp_path / "pack", {f"{name}.png": png(), f"{name}.cls": b"1"}, gzipped)
    before = everything_below(tmp_path)
    dataset = registry.datasets.build(f"webdataset:{folder}:resolution=8")
    batch = dataset.read([0])
    assert batch.labels.tolist() == [1] and everything_below(tmp_path) == before
    assert not Path("/tmp/robustcal-evil").exists()


def test_links_in_an_archive_are_not_followed(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png())
    folder = pack(tmp_path / "pack", {"a.png": png(), "a.cls": b"0"})
    with tarfile.open(folder / "test" / "0.tar", "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo(f"b{kind.decode()}.png")
            link.type, link.linkname = kind, str(secret)
            archive.addfile(link)
    assert len(registry.datasets.build(f"webdataset:{folder}:resolution=8").ids) == 1


def test_a_gzip_bomb_does_not_fill_the_disk(tmp_path):
    folder = pack(tmp_path / "pack", {"a.png": png(), "a.cls": b"0"})
    (folder / "test" / "0.tar").unlink()
    with gzip.open(folder / "test" / "0.tar.gz", "wb", compresslevel=9) as bomb:
        for _ in range(80):
            bomb.write(bytes(1 << 20))
    assert (folder / "test" / "0.tar.gz").stat().st_size < 1 << 20
    with pytest.raises(UserError, match="0.tar.gz.*unpacks to more than 64 MiB"):
        registry.datasets.build(f"webdataset:{folder}")


def test_an_image_bomb_is_an_image_that_does_not_decode(tmp_path):
    folder = pack(tmp_path / "pack", {"a.png": bomb_png(), "a.cls": b"0"})
    dataset = registry.datasets.build(f"webdataset:{folder}:resolution=8")
    with pytest.raises(UserError, match="a.png.*cannot be read"):
        dataset.read([0])


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def npy_header(text: str) -> bytes:
    header = text.encode() + b" " * (63 - (10 + len(text)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def test_hostile_npy_labels_are_refused_and_never_run(tmp_path):
    trap = io.BytesIO()
    np.save(trap, np.array([Trap(tmp_path / "ran")], dtype=object), allow_pickle=True)
    absurd = [npy_header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({shape}), }}") + b"\0" * 16
              for shape in ("10**15,".replace("10**15", str(10**15)), f"{2**62}, {2**62}", "-5,")]  # fmt: skip
    for number, label in enumerate([trap.getvalue(), pickle.dumps(Trap(tmp_path / "ran")), *absurd]):
        folder = pack(tmp_path / f"pack-{number}", {"a.png": png(), "a.npy": label})
        with pytest.raises(UserError, match="unreadable .npy label|no multi-hot row"):
            registry.datasets.build(f"webdataset:{folder}")
    assert not (tmp_path / "ran").exists()


def test_code_in_a_model_folder_is_never_imported(tmp_path):
    """A folder that brings its own Python and names it everywhere that other loaders would look."""
    folder = write_model(tmp_path / "model")
    code = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n"
    names = ("modeling_clip.py", "configuration_clip.py", "tokenization_clip.py", "__init__.py", "open_clip.py", "conftest.py")
    for name in names:
        (folder / name).write_text(code)
    auto = {"AutoModel": "modeling_clip.CLIP", "AutoConfig": "configuration_clip.Config", "AutoTokenizer": ["tokenization_clip.T", None]}
    hub = {"auto_map": auto, "trust_remote_code": True, "architectures": ["CLIP"], "model_type": "evil"}
    for name in ("config.json", "tokenizer_config.json"):
        (folder / name).write_text(json.dumps(hub))
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **hub}))
    model = registry.models.build(f"clip:local-dir:{folder}")
    assert model.classifier(["cat", "dog"], ["a photo of a {}"]).num_classes == 2
    config["model_cfg"]["text_cfg"] |= {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder), **hub}
    path.write_text(json.dumps(config))
    with pytest.raises(UserError):
        registry.models.build(f"clip:local-dir:{folder}")
    assert not (tmp_path / "ran").exists()


def test_a_model_folder_that_asks_for_absurd_shapes_is_refused(tmp_path):
    folder = write_model(tmp_path / "model")
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    for key, value in (("embed_dim", 10**9), ("embed_dim", -1)):
        path.write_text(json.dumps({**config, "model_cfg": {**config["model_cfg"], key: value}}))
        with pytest.raises(UserError) as error:
            registry.models.build(f"clip:local-dir:{folder}")
        assert "\n" not in str(error.value)


def test_hostile_run_directories_are_one_line(tmp_path, capsys):
    for number, header in enumerate(('{"format": 1, "invocations": "x"}', "[]", "null", '{"format": {}}', "\x00\xff", '{"format": 1}')):
        run = tmp_path / f"run-{number}"
        (run / "records" / ("a" * 16)).mkdir(parents=True)
        (run / "run.json").write_text(header, encoding="latin-1")
        (run / "records" / ("a" * 16) / "00000.parquet").write_bytes(pickle.dumps(Trap(tmp_path / "ran")))
        status = main(["report", str(run)])
        error = capsys.readouterr().err
        assert status in (0, 2) and "Traceback" not in error and error.count("\n") == (status == 2), (header, error)
    assert not (tmp_path / "ran").exists()


def test_the_command_line_says_that_a_plugin_is_run():
    for command in ("bench", "ls", "check", "train"):
        sub = parser()._subparsers._group_actions[0].choices[command]
        text = next(action.help for action in sub._actions if "--plugin" in action.option_strings)
        assert "run" in text, command
