"""Time left from planned passes and their cost so far; the display on a terminal and elsewhere."""

import io
import logging
import sys
from contextlib import redirect_stderr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import robustcal
from robustcal.progress import Display
from robustcal.progress.remaining import Remaining
from robustcal.sweep.events import CellFailed, Planned, Restarted, ShardDone, Working

COSTS = {"small": 0.001, "large": 0.02}  # seconds a pass


@given(
    passes=st.dictionaries(st.sampled_from(sorted(COSTS)), st.lists(st.integers(1, 1000), min_size=2, max_size=8), min_size=1),
    workers=st.integers(1, 4),
)
@settings(max_examples=100, deadline=None)
def test_time_left_is_exact_once_a_shard_of_every_kind_is_done(passes, workers):
    left = Remaining({kind: float(sum(counts)) for kind, counts in passes.items()})
    assert left.seconds() is None
    for kind, counts in passes.items():
        left.done(kind, counts[0], counts[0] * COSTS[kind])
    truth = sum(sum(counts[1:]) * COSTS[kind] for kind, counts in passes.items()) / workers
    assert left.seconds(workers) == pytest.approx(truth)


def test_a_hundred_cheap_shards_do_not_make_the_dear_ones_look_cheap():
    """By shards, 100 of 104 done after 1 s would be "0 s left"; the four left cost a thousand passes each."""
    left = Remaining({"a": 100.0 + 4000.0})
    for _ in range(100):
        left.done("a", 1.0, 0.01)
    assert left.seconds() == pytest.approx(40.0)


def test_a_kind_never_seen_is_taken_to_cost_the_average():
    left = Remaining({"a": 10.0, "b": 10.0})
    left.done("a", 10.0, 5.0)
    assert left.seconds() == pytest.approx(5.0)


def planned(**more):
    facts = {"passes": {"c": 40.0}, "passes_each": {"c": 1.0}, "forwards": {"c": 10.0}, "kinds": {"c": "k"}, "titles": {"c": "clip digits pgd"}}
    return Planned(cells=1, samples=40, shards=3, pending=2, **(facts | more))


EVENTS = [
    planned(notes=("something was noticed",)), Working(0, "c", 0, 3, 2), ShardDone("c", 0, 20, 0, 2.0), Restarted("status 1"),
    CellFailed("d", "clip x digits x pgd", "broken"), CellFailed("d", "clip x digits x pgd", "broken"), ShardDone("c", 1, 20, 0, 2.0),
]  # fmt: skip


@pytest.mark.parametrize("how", [{}, {"verbose": True}, {"quiet": True}])
def test_plain_lines_say_each_thing_once_and_quiet_only_what_is_wrong(how, capsys):
    with Display(live=False, **how) as display:
        for event in EVENTS:
            display(event)
    out, err = capsys.readouterr()
    assert err.count("something was noticed") == err.count("broken") == err.count("status 1") == 1
    assert ("1 cells, 40 samples; 2 shards to compute, 1 already there" in out) == (not how.get("quiet"))
    assert err.count("shard 0, 20 samples") == bool(how.get("verbose"))
    assert ("2/2 shards, about 0 s left" in out) == (not how.get("quiet"))


def test_on_a_terminal_there_is_a_bar_for_the_sweep_and_one_for_each_worker(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    screen = io.StringIO()
    with redirect_stderr(screen), Display(live=True, stream=io.StringIO()) as display:
        display(planned())
        display(Working(0, "c", 0, 3, 2))
        display(Working(1, "c", 1, 7, 2))
        display(ShardDone("c", 0, 20, 0, 2.0))
        assert len(display.bars.tasks) == 3
        sweep, first, second = display.bars.tasks
        assert (sweep.completed, sweep.total) == (1, 2) and sweep.fields["left"] == "about 2 s left"
        assert (first.completed, second.completed) == (3, 7) and first.total == 20 and first.description == "clip digits pgd"
        display(Working(0, "c", 0, 33, 2))
        assert display.bars.tasks[1].total == 33  # more passes than planned never look like more than all
    assert display.bars is None


def test_a_sweep_tells_its_passes_so_that_time_can_be_told(tmp_path):
    seen = []
    how = {"models": ["tiny-clip"], "datasets": ["digits"], "eps": "2/255", "limit": 20, "device": "cpu", "workers": 1}
    robustcal.bench(attacks=["clean", "pgd:steps=5"], out=tmp_path / "run", progress=seen.append, **how)
    (plan,) = [event for event in seen if isinstance(event, Planned)]
    assert sorted(plan.passes_each.values()) == [1, 6 + 1 + 10]  # clean: the judge; PGD-5: 6 looks, the judge, 5 gradients at two each
    assert sum(plan.passes.values()) == 20 * sum(plan.passes_each.values())
    robustcal.bench(attacks=["clean", "pgd:steps=5"], out=tmp_path / "run", progress=seen.append, **how)
    assert not [event for event in seen if isinstance(event, Planned)][1].passes  # nothing is pending


def test_an_attack_of_ones_own_is_not_run_to_count_its_passes(tmp_path):
    """It may take an hour, or leave a trace: only a worker runs it."""
    plugin = tmp_path / "slow.py"
    plugin.write_text(
        "from robustcal import register\nRUNS = []\n@register.attack(kind='control', returns='last')\n"
        "def slow(classifier, images, labels, threat, noise):\n    classifier(images)\n    RUNS.append(len(images))\n    return images\n"
    )
    how = {"models": ["tiny-clip"], "datasets": ["digits"], "eps": "2/255", "limit": 20, "device": "cpu", "workers": 1}
    robustcal.bench(attacks=["slow"], plugins=[plugin], out=tmp_path / "run", progress=False, **how)
    (module,) = [module for name, module in sys.modules.items() if name.startswith("robustcal_plugin_slow")]
    assert module.RUNS == [20]


def test_from_python_a_display_by_default_silence_on_request_and_a_log_underneath(tmp_path, capsys, caplog):
    how = {"models": ["tiny-clip"], "attacks": ["clean"], "datasets": ["digits"], "limit": 8, "device": "cpu", "workers": 1}
    robustcal.bench(out=tmp_path / "a", **how)
    assert "1 shards to compute" in capsys.readouterr().err
    with caplog.at_level(logging.INFO, logger="robustcal"):
        robustcal.bench(out=tmp_path / "b", progress=False, **how)
    assert capsys.readouterr() == ("", "") and "ShardDone" in caplog.text
