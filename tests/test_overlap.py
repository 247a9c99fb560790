"""What comes ahead of an attack and what follows behind it: order, bounds, failures; decoded once; the same records."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from robustcal import registry
from robustcal.cell import SHARD
from robustcal.datasets import images as image_files
from robustcal.noise import Draw, Noise, draw_ahead
from robustcal.records.store import Run, claim_name
from robustcal.sweep import pixels as pixel_store
from robustcal.sweep import shift
from robustcal.sweep import worker as worker_module
from robustcal.sweep.events import CellFailed, ShardDone
from robustcal.sweep.later import Behind, Later
from robustcal.sweep.loading import join, on_gpu
from robustcal.sweep.pixels import Key, Pixels, keep, unit
from robustcal.sweep.plan import Request, Sweep, make_plan
from robustcal.sweep.run import attack_and_judge, make_attack
from robustcal.sweep.sizes import Sizes
from robustcal.sweep.walk import stretches
from robustcal.sweep.worker import Worker
from robustcal.types import Batch, Threat

PLUGIN = '''
import torch
from robustcal import register
from robustcal.clip.classifier import LogitClassifier

class Pooled:
    fingerprint = "pooled-0"
    def classifier(self, classnames, templates=()):
        body = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, len(classnames)))
        body[2].weight.data = torch.randn(len(classnames), 48, generator=torch.Generator().manual_seed(self.seed))
        body[2].bias.data.zero_()
        return LogitClassifier(body, classnames)

@register.model
def overlap_net(*, seed: int = 0):
    """A random linear model."""
    net = Pooled()
    net.seed, net.fingerprint = seed, f"pooled-{seed}"
    return net
'''


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "overlap_net.py"
    path.write_text(PLUGIN)
    registry.load_plugin_file(path)
    yield str(path)
    registry.models.plugins.pop("overlap-net", None)


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    """Two classes, 300 JPEG files: three shards."""
    root, generator = tmp_path_factory.mktemp("jpegs") / "pets", np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(150):
            Image.fromarray(generator.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(root / name / f"{number}.jpg")
    return f"folder:{root}:resolution=16"


def plan_of(dataset, models=1, attacks="clean,pgd:steps=2", eps="8/255", limit=None):
    return make_plan(Request((Sweep.of([f"overlap-net:seed={seed}" for seed in range(models)], attacks, [dataset], eps, limit),)))


def done(plan, path, **how):
    run = Run.create(path, {})
    for cell in plan.cells:
        run.add_cell(cell)
    events = list(shift.work(Worker(plan, **how), run))
    return run, events


def same(one, other, plan):
    for cell in plan.cells:
        left, right = one.read(cell.id), other.read(cell.id)
        assert left.keys() == right.keys()
        for name in left:
            assert all(np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f") for a, b in zip(left[name], right[name])), name


# -- overlap -----------------------------------------------------------------------------------------------------------


def test_the_next_shard_is_read_while_one_is_attacked_and_none_after_it(jpegs, tmp_path, monkeypatch):
    """With reading that is worth it: an attack does not end before the next read has begun, and never are two units ahead."""
    plan, log, lock = plan_of(jpegs, attacks="pgd:steps=2"), [], threading.Lock()
    source = plan.sources[plan.cells[0].dataset].dataset
    real_read, begun = source.read, [threading.Event() for _ in range(4)]

    def read(indices):
        with lock:
            number = sum(kind == "read" for kind, _ in log)
            log.append(("read", number))
        begun[number].set()
        time.sleep(0.05)  # so that it counts
        return real_read(indices)

    worker = Worker(plan)
    real_attack = worker.attack

    def attack(cell, loaded, *more):
        with lock:
            number = sum(kind == "attack" for kind, _ in log)
            log.append(("attack", number))
        if 0 < number < 2:  # the first attack says whether reading is worth a thread
            assert begun[number + 1].wait(30), "the next shard is not read meanwhile"
        with lock:
            assert sum(kind == "read" for kind, _ in log) <= number + 2
        return real_attack(cell, loaded, *more)

    monkeypatch.setattr(source, "read", read)
    monkeypatch.setattr(worker, "attack", attack)
    run = Run.create(tmp_path / "run", {})
    run.add_cell(plan.cells[0])
    assert len(list(shift.work(worker, run))) == 3
    assert not [path for path in (tmp_path / "run" / "claims").iterdir() if not path.name.startswith(".")]


def test_reading_that_costs_nothing_is_not_claimed_ahead(jpegs, tmp_path, monkeypatch):
    """Other workers find more to do, and no core is shared, where there is nothing to gain."""
    plan = plan_of(jpegs, attacks="pgd:steps=2")
    worker, held, cell = Worker(plan), [], plan.cells[0].id
    real = worker.attack
    run = Run.create(tmp_path / "run", {})
    run.add_cell(plan.cells[0])

    def attack(cell, loaded, *more):
        held.append(run.claims.held())
        return real(cell, loaded, *more)

    monkeypatch.setattr(worker, "attack", attack)
    monkeypatch.setattr(shift, "WORTH", 1e9)
    list(shift.work(worker, run))
    assert len(held) == 3 and not any(claim_name(cell, number + 1) in claims for number, claims in enumerate(held))


def test_writing_follows_behind_in_order_is_bounded_and_ends_at_the_first_failure():
    gates, made = [threading.Event() for _ in range(4)], []

    def call(number):
        gates[number].wait(30)
        if number == 2:
            raise OSError("full")
        made.append(number)
        return number

    behind = Behind(room=2)
    assert list(behind.put(lambda: call(0))) == list(behind.put(lambda: call(1))) == [] and made == []
    third = Later(lambda: list(behind.put(lambda: call(2))))
    assert not third.wait(0.1)  # there is no room for it
    gates[0].set()
    assert third.result() == [0]
    gates[1].set()
    gates[3].set()
    assert list(behind.put(lambda: call(3))) == [1]
    gates[2].set()
    with pytest.raises(OSError, match="full"):
        list(behind.drain())
    behind.close()
    assert made == [0, 1]  # nothing was made after the failure


def test_an_interrupted_sweep_leaves_no_claim_and_keeps_what_was_attacked(jpegs, tmp_path):
    plan = plan_of(jpegs)
    run = Run.create(tmp_path / "run", {})
    for cell in plan.cells:
        run.add_cell(cell)
    events = shift.work(Worker(plan), run)
    next(events)
    events.close()  # what Ctrl-C and --strict do
    assert run.claims.held() == set()
    before = sum(len(run.present(cell.id)) for cell in plan.cells)
    assert before >= 1
    assert len(list(shift.work(Worker(plan), run))) == plan.shards - before


def test_a_decoder_that_hangs_is_one_line_and_other_data_sets_finish(jpegs, tmp_path, monkeypatch):
    plan = make_plan(Request((Sweep.of("overlap-net", "clean", [jpegs, "digits"], limit=20),)))
    let_go = threading.Event()
    monkeypatch.setattr(plan.sources[plan.cells[0].dataset].dataset, "read", lambda indices: let_go.wait(60))
    monkeypatch.setattr(shift, "HANGS", 0.2)
    run, events = done(plan, tmp_path / "run")
    let_go.set()
    (failure,) = [event for event in events if isinstance(event, CellFailed)]
    assert "does not end" in failure.reason and "\n" not in failure.reason and failure.hangs
    assert [event.cell for event in events if isinstance(event, ShardDone)] == [plan.cells[1].id]
    assert run.claims.held() == set()


def test_a_decoder_that_dies_is_one_line(jpegs, tmp_path, monkeypatch):
    plan = plan_of(jpegs, attacks="clean")

    def dies(indices):
        raise MemoryError("no more")

    monkeypatch.setattr(plan.sources[plan.cells[0].dataset].dataset, "read", dies)
    _, (event,) = done(plan, tmp_path / "run")
    assert isinstance(event, CellFailed) and "MemoryError: no more" in event.reason


# -- decoded once ------------------------------------------------------------------------------------------------------


@pytest.fixture
def decodes(monkeypatch):
    """How often each image was decoded."""
    counts, real = {}, image_files.ImageDataset.pixels

    def pixels(self, index):
        counts[index] = counts.get(index, 0) + 1
        return real(self, index)

    monkeypatch.setattr(image_files.ImageDataset, "pixels", pixels)
    return counts


def test_three_models_and_five_attacks_decode_every_image_once(jpegs, tmp_path, decodes):
    attacks = "clean,fgsm,pgd:steps=1,cw:steps=1,noise"
    plan = plan_of(jpegs, models=3, attacks=attacks, eps="1/255,2/255")
    done(plan, tmp_path / "run")
    assert len(decodes) == 300 and set(decodes.values()) == {1}


def test_a_set_that_does_not_fit_is_gone_through_in_blocks_and_decoded_once_all_the_same(jpegs, tmp_path, decodes):
    plan = plan_of(jpegs, models=3, attacks="clean,fgsm")
    kept = Pixels(memory=SHARD * 3 * 16 * 16)  # one shard
    run, _ = done(plan, tmp_path / "run", pixels=kept)
    assert set(decodes.values()) == {1} and len(kept._held) == 1
    whole, _ = done(plan, tmp_path / "whole")
    same(run, whole, plan)


def test_workers_that_share_a_folder_decode_once_and_a_damaged_file_is_read_anew(jpegs, tmp_path, decodes):
    plan, folder = plan_of(jpegs), tmp_path / "pixels"
    folder.mkdir()
    one, _ = done(plan, tmp_path / "one", pixels=Pixels(folder))
    other, _ = done(plan, tmp_path / "other", pixels=Pixels(folder))
    assert set(decodes.values()) == {1}
    same(one, other, plan)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:50])
    again, _ = done(plan, tmp_path / "again", pixels=Pixels(folder))
    assert set(decodes.values()) == {2}
    same(one, again, plan)


def test_the_folder_is_gone_in_the_end_and_holds_no_more_than_it_may(tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_store.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(pixel_store.tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"{pixel_store.PREFIX}{2**22 + 1}-x").mkdir()  # of a driver that was killed: no such process
    kept = keep(Batch(("a",), torch.rand(1, 3, 8, 8), torch.zeros(1, dtype=torch.int64)), [])
    with pixel_store.shared_folder() as folder:
        assert [path.name for path in tmp_path.iterdir()] == [folder.name]
        small = Pixels(folder, disk=1000)
        for shard in range(3):
            small.put(Key("d", "i", "o", shard, 1, False), kept)
        assert len(list(folder.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_is_what_was_read_bit_for_bit():
    bytes_ = image_files.to_unit(np.random.default_rng(0).integers(0, 256, (4, 9, 9, 3), dtype=np.uint8))
    floats = torch.rand(4, 3, 9, 9)
    for images, kind in ((bytes_, torch.uint8), (floats, torch.float32)):
        kept = keep(Batch(tuple("abcd"), images, torch.arange(4)), ["x"])
        assert kept.pixels.dtype == kind and kept.skipped == ("x",)
        assert torch.equal(kept.batch().images, images) and torch.equal(on_gpu(kept.pixels), images)
        assert torch.equal(join([kept, kept], "cpu").images, torch.cat([images, images]))
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(on_gpu(every), unit(every)) and torch.equal(unit(every), every / 255)


# -- order -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [1, SHARD * 3 * 16 * 16 * 2, 1 << 40])
@pytest.mark.parametrize("first", [0, 3])
def test_a_walk_visits_every_shard_once(jpegs, memory, first):
    plan = plan_of(jpegs, models=2, attacks="clean,fgsm", eps="1/255,2/255")
    walk = stretches(plan.cells, memory, first)
    visited = [(cell.id, shard) for stretch in walk for cell in stretch.cells for shard in range(cell.shards) if shard in stretch]
    assert sorted(visited) == sorted((cell.id, shard) for cell in plan.cells for shard in range(cell.shards))
    assert len(visited) == len(set(visited)) and plan.cells[first] in walk[0].cells
    assert all(len({(cell.model, cell.attack) for cell in stretch.cells}) == 1 for stretch in walk)


# -- start noise -------------------------------------------------------------------------------------------------------

DRAWS = [Draw("random", (3, 5, 5)), Draw("standard_normal", (3, 5, 5)), Draw("integers", (3, 1, 5), 2)]


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("threads", [1, 4])
def test_noise_drawn_ahead_has_the_bits_of_noise_drawn_when_asked_for(draw, threads):
    def asked(noise, kind):
        if kind.kind == "random":
            return noise.uniform(kind.shape, -0.25, 0.5)
        return noise.normal(kind.shape) if kind.kind == "standard_normal" else noise.integers(kind.shape, kind.high)

    ids = [f"s/{number}" for number in range(7)]
    ahead = draw_ahead(3, ids, draw, threads)
    some = torch.tensor([0, 1, 0, 1, 1, 0, 1], dtype=torch.bool)
    for first in DRAWS:  # what was drawn ahead, and what was not
        plain, quick = Noise(3, ids), Noise(3, ids, ahead=ahead)
        assert torch.equal(asked(plain, first), asked(quick, first)) and quick.first == first
        assert torch.equal(plain.select(some).uniform((4,)), quick.select(some).uniform((4,)))
        assert torch.equal(plain.normal((2,)), quick.normal((2,)))  # streams that went on, and streams that rested
        plain, quick = Noise(3, ids), Noise(3, ids, ahead=ahead)  # a part of the samples draws first
        assert torch.equal(asked(plain.select(some), first), asked(quick.select(some), first)) and quick.first == first
        assert torch.equal(asked(plain, first), asked(quick, first))
        twice = torch.tensor([1, 1, 3])
        assert torch.equal(asked(Noise(3, ids).select(twice), first), asked(Noise(3, ids, ahead=ahead).select(twice), first))
    assert torch.equal(asked(Noise(3, ids[2:5]), draw), asked(Noise(3, ids[2:5], ahead=ahead[2:5]), draw))


def test_an_attack_changes_nothing_of_what_was_drawn_ahead():
    ahead = draw_ahead(0, ["a", "b"], DRAWS[1])
    kept = ahead.values.clone()
    Noise(0, ["a", "b"], ahead=ahead).normal(DRAWS[1].shape).zero_()
    assert torch.equal(ahead.values, kept)


# -- batches -----------------------------------------------------------------------------------------------------------


class Card:
    """A stub of a device's memory: so much free, and so much per image of a batch."""

    def __init__(self, free, each):
        self.room, self.each, self.rows = free, each, 0

    def free(self):
        return self.room

    def used(self):
        return 1000

    def peak(self):
        return 1000 + self.each * self.rows


def test_the_batch_size_is_obeyed_across_shards_with_the_same_noise(jpegs, tmp_path, monkeypatch):
    plan, seen = plan_of(jpegs, attacks="pgd:steps=2", eps="2/255,8/255"), []
    wrap(monkeypatch, lambda images: seen.append(len(images)))
    small, _ = done(plan, tmp_path / "small")
    assert set(seen) == {128, 44}
    for asked, sizes in ((300, [300]), (200, [200, 56, 44]), (100, [100, 28, 100, 28, 44])):
        seen.clear()
        run, events = done(plan, tmp_path / str(asked), batch_size=asked)
        assert sorted(seen) == sorted(sizes * 2) and len(events) == 6
        for cell in plan.cells:
            left, right = small.read(cell.id), run.read(cell.id)
            assert list(left["id"]) == list(right["id"]) and np.array_equal(left["prediction"], right["prediction"])
            np.testing.assert_allclose(left["confidence"], right["confidence"], atol=1e-5)


def wrap(monkeypatch, before):
    """Call `before` with the images of every attack of a worker."""

    def make(spec, *more):
        attack = make_attack(spec, *more)
        return lambda classifier, images, *given: before(images) or attack(classifier, images, *given)

    monkeypatch.setattr(worker_module, "make_attack", make)


def test_the_batch_that_a_device_takes_is_measured_and_one_that_does_not_fit_is_not_tried_again(jpegs):
    (cell,) = plan_of(jpegs, attacks="fgsm").cells
    card = Card(free=1_000_000, each=1000)
    sizes = Sizes(memory=card)
    assert sizes.of(cell) == 128
    card.rows = 128
    with sizes.measured(cell, 128):
        pass
    assert sizes.of(cell) == 672 and sizes.shards(cell) == 6  # 700 images in 70 % of the memory, in whole 32s
    sizes.ran_out(cell, 300)
    assert sizes.of(cell) == 300
    card.each = 1
    wide = Sizes(memory=card)
    with wide.measured(cell, 128):
        pass
    assert wide.of(cell) == 1024
    asked = Sizes(asked=2000, memory=card)
    assert asked.of(cell) == 2000 and asked.shards(cell) == 16
    asked.ran_out(cell, 500)
    assert asked.of(cell) == 500
    looks = replace(cell, identity=replace(cell.identity, attack="autoattack:paper"))
    fixed = Sizes(memory=card)
    with fixed.measured(looks, 128):
        pass
    assert fixed.of(looks) == 128  # its result depends on the batch, so the batch does not depend on the memory


def test_memory_that_runs_out_in_mid_batch_loses_nothing(jpegs, tmp_path, monkeypatch):
    plan, tried = plan_of(jpegs, attacks="fgsm"), []
    honest, _ = done(plan, tmp_path / "honest")

    def greedy(images):
        tried.append(len(images))
        if len(images) > 40:
            raise torch.OutOfMemoryError("too much")

    wrap(monkeypatch, greedy)
    run, events = done(plan, tmp_path / "run", batch_size=256)
    assert tried[:4] == [256, 128, 64, 32] and max(tried[4:]) <= 32 and len(events) == 3
    for cell in plan.cells:
        assert np.array_equal(honest.read(cell.id)["prediction"], run.read(cell.id)["prediction"])


# -- less work ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["pgd:steps=6:return=success-else-last", "square:queries=60:return=success-else-clean"])
def test_finished_samples_leave_the_batch_and_the_record_is_that_of_each_alone(spec):
    """Rows that are done cost no pass; each of the others is what it would be without its neighbours."""
    torch.manual_seed(0)
    body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 4)).double()

    class Exact(torch.nn.Module):
        num_classes, rows = 4, 0

        def forward(self, images):
            Exact.rows += len(images)
            return body(images.double())

    classifier, images = Exact().eval(), torch.rand(12, 3, 8, 8)
    ids, labels = tuple(map(str, range(12))), Exact()(images).argmax(1)
    labels[::3] = (labels[::3] + 1) % 4  # a third is wrong from the beginning
    Exact.rows = 0
    _, together = attack_and_judge(make_attack(spec), classifier, Batch(ids, images, labels), Threat(0.05))
    assert together["forwards"].max() * 12 == pytest.approx(Exact.rows - 12, abs=0.01)  # the judge's are not counted
    everything = 7 if spec.startswith("pgd") else 60
    assert together["forwards"].max() < everything
    for row in range(12):
        one = Batch(ids[row : row + 1], images[row : row + 1], labels[row : row + 1])
        _, alone = attack_and_judge(make_attack(spec), classifier, one, Threat(0.05))
        np.testing.assert_allclose(alone["top_logits"][0], together["top_logits"][row], atol=1e-6)


def test_what_workers_are_forked_with_exists():
    """The forking process skips what it cannot import without a word."""
    from importlib.util import find_spec

    from robustcal.sweep.local import IMPORTS

    assert all(find_spec(name) for name in IMPORTS)
