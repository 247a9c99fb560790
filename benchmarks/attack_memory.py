"""Peak memory of a sweep against its number of samples: each count in a fresh process, shard by shard, to the store.

    python benchmarks/attack_memory.py 1024 8192
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
SIDE = 64


def peak_memory(samples: int) -> int:
    """Peak resident bytes of a fresh process that attacks, judges and stores this many samples."""
    command = [sys.executable, __file__, "--inside", str(samples)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def fill(samples: int) -> int:
    """Attack, judge and store; peak resident bytes of this process."""
    import torch
    from cells import cell

    from robustcal import registry
    from robustcal.cell import SHARD
    from robustcal.clip.classifier import LogitClassifier
    from robustcal.records.store import Run
    from robustcal.sweep.run import run_shard
    from robustcal.types import Batch

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE**2, 100))
    classifier = LogitClassifier(network, [str(i) for i in range(100)])
    made = cell("pgd", "1/255", n=samples)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", {"command": "attack_memory"})
        for shard in range(samples // SHARD):
            ids = tuple(f"{shard}/{i}" for i in range(SHARD))
            batch = Batch(ids, torch.rand(SHARD, 3, SIDE, SIDE), torch.randint(100, (SHARD,)))
            records = run_shard(made, batch, classifier, registry.attacks.get("pgd").make, 32)
            run.write_shard(made.id, shard, records)
    return own_peak()


def own_peak() -> int:
    """Peak resident bytes of this process; `ru_maxrss` would start at what the parent held when it forked."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        print(fill(int(sys.argv[2])))
    else:
        for count in sys.argv[1:]:
            print(f"{count:>8} samples  {peak_memory(int(count)) / 2**20:8.1f} MiB")
