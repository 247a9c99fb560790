"""Fetching: from a server on this machine through the real download code, and what is said when nothing answers."""

import functools
import hashlib
import http.server
import shutil
import threading

import dataset_files as files
import pytest
import torch

from robustcal.datasets import fetch, presence
from robustcal.registry import datasets
from robustcal.types import UserError

torch.set_num_threads(1)
LABELS = [2, 0, 1]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    """A folder, and the address under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=service.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{service.server_port}"
    service.shutdown()
    service.server_close()


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("ROBUSTCAL_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("ROBUSTCAL_OFFLINE", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "data"


def change(monkeypatch, name, **fields):
    """Point a card elsewhere for one test."""
    cards = dict(datasets.cards())
    cards[name] = {**cards[name], **fields}
    monkeypatch.setattr(datasets, "_cards", cards)


def archive(folder, make, inside, form):
    """Build a miniature set, pack it as the authors do, and return the archive and its md5 sum."""
    work = folder.parent / "work"
    work.mkdir()
    make(work, LABELS)
    path = shutil.make_archive(str(folder / inside), form, work, inside)
    return path, hashlib.md5(open(path, "rb").read()).hexdigest()


def test_torchvision_fetches_what_is_missing(server, root, monkeypatch):
    folder, address = server
    _, md5 = archive(folder, files.food101, "food-101", "gztar")
    monkeypatch.setattr("torchvision.datasets.Food101._URL", f"{address}/food-101.tar.gz")
    monkeypatch.setattr("torchvision.datasets.Food101._MD5", md5)
    change(monkeypatch, "food101", download=f"{address}/food-101.tar.gz")
    data = datasets.build("food101:check=false")
    assert data.labels.tolist() == sorted(LABELS)
    assert presence.availability(datasets.cards()["food101"])[0]


def test_an_archive_of_class_folders_is_fetched_once(server, root, monkeypatch):
    folder, address = server
    path, md5 = archive(folder, files.tiny_imagenet, "tiny-imagenet-200", "zip")
    change(monkeypatch, "tiny-imagenet", download=f"{address}/tiny-imagenet-200.zip", md5=md5)
    assert datasets.build("tiny-imagenet:check=false").labels.tolist() == LABELS
    shutil.rmtree(folder)
    assert datasets.build("tiny-imagenet:check=false").labels.tolist() == LABELS


def test_a_changed_archive_is_refused(server, root, monkeypatch):
    folder, address = server
    archive(folder, files.tiny_imagenet, "tiny-imagenet-200", "zip")
    change(monkeypatch, "tiny-imagenet", download=f"{address}/tiny-imagenet-200.zip")
    with pytest.raises(UserError, match="'tiny-imagenet' could not be fetched .*unpack http"):
        datasets.build("tiny-imagenet")


def test_an_address_that_is_gone(server, root, monkeypatch):
    _, address = server
    change(monkeypatch, "tiny-imagenet", download=f"{address}/gone.zip")
    with pytest.raises(UserError, match="could not be fetched"):
        datasets.build("tiny-imagenet")


def test_no_host_and_no_wish(root, monkeypatch):
    card = {**datasets.cards()["cifar10"], "download": "http://127.0.0.1:9/cifar.tar.gz"}
    assert not fetch.can_fetch(card)
    monkeypatch.setenv("ROBUSTCAL_OFFLINE", "1")
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("offline means offline"))
    assert not fetch.can_fetch(card)
