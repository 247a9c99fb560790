"""The sweep on a Ray cluster: the same table as on one machine, also when a node dies in mid-shard."""

import re
import threading

import pytest
import torch

ray = pytest.importorskip("ray")

import robustcal  # noqa: E402
from robustcal.cli import main  # noqa: E402
from robustcal.sweep.events import Restarted, ShardDone  # noqa: E402

PLUGIN = '''
"""A linear model without weights, an attack that says where it is and hangs on a doomed node, and one that fails."""
import pathlib
import time
import torch
from robustcal import register
from robustcal.clip.classifier import LogitClassifier

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
def ray_noise(classifier, images, labels, threat, noise, *, folder: str):
    """Noise; on the node that the folder names as doomed it says that it has begun and never ends. Others wait for that."""
    classifier(images)
    doomed, begun = pathlib.Path(folder) / "doomed", pathlib.Path(folder) / "begun"
    import ray
    if ray.is_initialized() and doomed.exists():
        if doomed.read_text() == ray.get_runtime_context().get_node_id():
            begun.touch()
            time.sleep(3600)
        for _ in range(3000):
            if begun.exists():
                break
            time.sleep(0.1)
    return images + threat.eps * torch.sign(noise.uniform(images.shape[1:], -1, 1))

@register.attack(kind="white-box", returns="last")
def ray_hangs(classifier, images, labels, threat, noise, *, folder: str):
    """The images; the first worker that comes here hangs after its first pass, with its process alive."""
    classifier(images)
    try:
        (pathlib.Path(folder) / "hung").touch(exist_ok=False)
    except FileExistsError:
        return images
    time.sleep(3600)

@register.attack(kind="white-box", returns="last")
def ray_bad(classifier, images, labels, threat, noise):
    """Fails once it has seen a model."""
    classifier(images)
    raise ValueError("nobody expected this")
'''

#: Small stores, and patience: on a busy machine a process of Ray may need a minute to start or to say that it lives.
STORE = 100 * 1024 * 1024
PATIENT = {
    "health_check_initial_delay_ms": 60_000, "health_check_timeout_ms": 60_000, "worker_register_timeout_seconds": 300,
    "gcs_server_request_timeout_seconds": 300, "enable_worker_prestart": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster():
    """A head that computes nothing, and one node of one CPU beside it. The driver joins it as a user's would."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_raylet_start_wait_time_s", "300")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE, "_system_config": PATIENT}
        try:
            cluster = Cluster(initialize_head=True, head_node_args=head)
            add_node(cluster)
        except Exception as error:  # Ray's own start-up, before anything of ours runs
            pytest.skip(f"no local Ray cluster starts here: {error}")
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def add_node(cluster):
    node = cluster.add_node(wait=False, num_cpus=1, object_store_memory=STORE)
    cluster.wait_for_nodes(timeout=300)
    return node


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "ray_net.py"
    path.write_text(PLUGIN)
    return str(path)


def sweep(plugin, folder, out, **more):
    return robustcal.bench(
        models=["ray-linear"], attacks=["clean", "pgd:steps=2", f"ray-noise:folder={folder}"], datasets=["digits"], eps=["4/255"],
        limit=300, plugins=[plugin], out=out, device="cpu", **more,
    )  # fmt: skip


def test_a_node_that_dies_in_mid_shard_changes_nothing(cluster, plugin, tmp_path):
    """The node is killed when the attack says that it has begun there, and has no way to end."""
    local = sweep(plugin, tmp_path, tmp_path / "local", workers=1)
    doomed = add_node(cluster)
    (tmp_path / "doomed").write_text(doomed.node_id)

    over = threading.Event()

    def kill():
        while not (tmp_path / "begun").exists() and not over.wait(0.05):
            pass
        cluster.remove_node(doomed, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    events = []
    try:
        run = sweep(plugin, tmp_path, tmp_path / "ray", engine="ray", workers=2, progress=events.append)
    finally:
        over.set()
        killer.join()
    assert (tmp_path / "begun").exists() and Restarted in {type(event) for event in events}
    assert (run.path / "cells.csv").read_bytes() == (local.path / "cells.csv").read_bytes()
    assert not [path for path in (run.path / "claims").iterdir() if not path.name.startswith(".")]


def test_a_worker_that_hangs_is_replaced(cluster, plugin, tmp_path, monkeypatch):
    """Its actor lives and answers, but makes no more passes through the model."""
    from robustcal.sweep import raypool

    monkeypatch.setattr(raypool, "SILENCE", 5.0)
    events = []
    how = {"models": ["ray-linear"], "datasets": ["digits"], "eps": ["4/255"], "limit": 200, "plugins": [plugin], "device": "cpu"}
    how["attacks"] = [f"ray-hangs:folder={tmp_path}"]
    run = robustcal.bench(**how, out=tmp_path / "ray", engine="ray", workers=1, progress=events.append)
    assert (tmp_path / "hung").exists() and "hung for 5 s" in {event.reason for event in events if isinstance(event, Restarted)}
    assert sorted(event.shard for event in events if isinstance(event, ShardDone)) == [0, 1]
    local = robustcal.bench(**how, out=tmp_path / "local", workers=1)  # the file is there: nobody hangs
    assert (run.path / "cells.csv").read_bytes() == (local.path / "cells.csv").read_bytes()
    assert not [path for path in (run.path / "claims").iterdir() if not path.name.startswith(".")]


def test_a_dry_run_counts_the_workers_of_the_cluster(cluster, plugin, capsys):
    args = ["bench", "--dry-run", "--engine", "ray", "--plugin", plugin, "--models", "ray-linear", "--attacks", "clean", "pgd:steps=3",
            "--datasets", "digits", "cifar10", "--device", "cpu"]  # fmt: skip
    assert main(args) == 0
    text = capsys.readouterr().out
    found = re.search(r"^time .* on (\d+) cpu workers? \(Ray, cpu", text, flags=re.MULTILINE)
    assert found and int(found[1]) in (1, 2), text  # one node of one CPU, and for a while the one that died
    assert re.search(r"^ray-linear .* itself +yes$", text, flags=re.MULTILINE) and re.search(r"^cifar10 .* no: ", text, flags=re.MULTILINE)


def test_what_fails_at_a_worker_is_one_line_at_the_driver(cluster, plugin, tmp_path, capsys):
    """One line at once and the same at the end, although the cluster has just lost a node and Ray's loggers hear of it at some moment."""
    args = ["bench", "--engine", "ray", "--plugin", plugin, "--models", "ray-linear", "--attacks", "ray-bad", "--datasets", "digits",
            "--eps", "4/255", "--limit", "20", "--device", "cpu", "--workers", "1", "--no-report", "--out", str(tmp_path / "run")]  # fmt: skip
    assert main(args) == 2
    at_once, at_the_end = capsys.readouterr().err.splitlines()  # nothing else was asked for
    assert at_once.startswith("robustcal: failed: ") and all("ValueError: nobody expected this" in text for text in (at_once, at_the_end))


def test_a_gpu_that_the_cluster_lacks_is_one_line(cluster, plugin, tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    args = ["bench", "--engine", "ray", "--device", "cuda", "--limit", "1", "--datasets", "digits", "--out", str(tmp_path / "run")]
    assert main(args) == 2
    error = capsys.readouterr().err
    assert "no node of the Ray cluster has a GPU" in error and error.count("\n") == 1
