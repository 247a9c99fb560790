"""The sweep on a Ray cluster: the same table as on one machine, also when a node dies in mid-shard."""

import os
import threading

import pytest
import torch

ray = pytest.importorskip("ray")

import robustcal  # noqa: E402
from robustcal.cli import main  # noqa: E402

PLUGIN = '''
"""A linear model without weights, and an attack that takes its time."""
import time
import torch
from robustcal import register
from robustcal.classifier import LogitClassifier

class Linear:
    fingerprint = "linear-0"
    def classifier(self, classnames, templates=()):
        body = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(6), torch.nn.Flatten(), torch.nn.Linear(108, len(classnames)))
        body[2].weight.data = torch.randn(len(classnames), 108, generator=torch.Generator().manual_seed(0))
        body[2].bias.data.zero_()
        return LogitClassifier(body, classnames)

@register.model
def ray_linear():
    """A random linear model."""
    return Linear()

@register.attack(kind="white-box", returns="last")
def ray_slow(classifier, images, labels, threat, noise, *, seconds: float = 1.5):
    """Noise that takes its time."""
    time.sleep(seconds)
    return images + threat.eps * torch.sign(noise.uniform(images.shape[1:], -1, 1))
'''

# A local Ray cluster starts half a dozen processes and times its own heartbeats: too much for a small, busy machine.
pytestmark = pytest.mark.skipif(not os.environ.get("ROBUSTCAL_TEST_RAY"), reason="set ROBUSTCAL_TEST_RAY=1 to run these")


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU each beside a head that computes nothing."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "ray_net.py"
    path.write_text(PLUGIN)
    return str(path)


def sweep(plugin, out, **more):
    return robustcal.bench(
        models=["ray-linear"], attacks=["clean", "pgd:steps=2", "ray-slow"], datasets=["digits"], eps=["4/255"], limit=300,
        plugins=[plugin], out=out, device="cpu", **more,
    )  # fmt: skip


def test_a_node_that_dies_in_mid_shard_changes_nothing(cluster, plugin, tmp_path):
    local = sweep(plugin, tmp_path / "local", workers=1)
    slow_cells = set(local.cells.query("attack.str.startswith('ray-slow')").cell)
    assert len(slow_cells) == 1
    for attempt in range(3):  # the scheduler decides whether the node held a shard when it died
        doomed = cluster.add_node(num_cpus=1)
        events = []
        dead = threading.Event()

        def watch(event, doomed=doomed, dead=dead, events=events):
            events.append(event)
            # Both workers are in the slow attack when its first shard is done: the other one loses its node.
            if event["event"] == "shard" and event["cell"] in slow_cells and not dead.is_set():
                dead.set()
                cluster.remove_node(doomed, allow_graceful=False)

        run = sweep(plugin, tmp_path / f"ray-{attempt}", engine="ray", workers=2, progress=watch)
        assert dead.is_set()
        assert (run.path / "cells.csv").read_bytes() == (local.path / "cells.csv").read_bytes()
        assert not [path for path in (run.path / "claims").iterdir() if not path.name.startswith(".")]
        if "restart" in {event["event"] for event in events}:
            return
    pytest.skip("in three tries the node died between two shards; the tables were identical each time")


def test_a_bad_worker_is_one_line_at_the_driver(cluster, plugin, tmp_path, capsys):
    args = ["bench", "--engine", "ray", "--plugin", plugin, "--models", "ray-linear", "--attacks", "ray-slow:seconds=-1",
            "--datasets", "digits", "--limit", "20", "--device", "cpu", "--workers", "1", "--out", str(tmp_path / "run")]  # fmt: skip
    assert main(args) == 2
    error = capsys.readouterr().err
    assert error.startswith("robustcal: ") and error.count("\n") == 1 and "ValueError" in error


def test_a_gpu_that_the_cluster_lacks_is_one_line(cluster, plugin, tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    args = ["bench", "--engine", "ray", "--device", "cuda", "--limit", "1", "--datasets", "digits", "--out", str(tmp_path / "run")]
    assert main(args) == 2
    error = capsys.readouterr().err
    assert "no node of the Ray cluster has a GPU" in error and error.count("\n") == 1
