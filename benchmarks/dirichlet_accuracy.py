"""How exact is the Dirichlet KL? The textbook closed form and ours, in both precisions, against 60 digits.

    python benchmarks/dirichlet_accuracy.py --out results/dirichlet_accuracy.csv

Each row is one kind of pair of log-concentrations, at CLIP's cosines (0.2 +- 0.03, tau 0.07), `--rows` pairs each:
the median KL, what UCAT's published lambda makes of it, the relative error of the identity
KL ~ beta_0 KL_cat(q || p), and for each way of computing it the largest relative error and the share of results
below zero. With `--time` a last column: median seconds of a forward and backward pass over 256 pairs, on `--device`.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time

import mpmath
import torch
from torch import Tensor

from robustcal import dirichlet

PUBLISHED = 1e5 / (1 + math.exp(2 / 0.07))  #: lambda of UCAT


def closed_form(log_a: Tensor, log_b: Tensor) -> Tensor:
    """The textbook form, as torch.distributions writes it."""
    a, b = log_a.exp(), log_b.exp()
    a0, b0 = a.sum(-1), b.sum(-1)
    terms = b.lgamma() - a.lgamma() + (a - b) * (a.digamma() - a0.digamma().unsqueeze(-1))
    return a0.lgamma() - b0.lgamma() + terms.sum(-1)


def exact(log_a: Tensor, log_b: Tensor) -> float:
    with mpmath.workdps(60):
        a, b = ([mpmath.exp(mpmath.mpf(float(x))) for x in row] for row in (log_a, log_b))
        a0, b0, g, psi = mpmath.fsum(a), mpmath.fsum(b), mpmath.loggamma, mpmath.digamma
        top = psi(a0)
        return float(g(a0) - g(b0) + mpmath.fsum(g(y) - g(x) + (x - y) * (psi(x) - top) for x, y in zip(a, b)))


def pairs(kind: str, classes: int, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(log_a, log_b), float32, (rows, classes): an attacked image against its clean reference."""
    cosines = 0.2 + 0.03 * torch.randn(rows, classes, generator=generator)
    noise = torch.randn(rows, classes, generator=generator)
    moved = {"attacked": cosines + 0.02 * noise, "nearly equal": cosines + 1e-5 * noise, "evidence": cosines + 0.035}
    return dirichlet.log_concentration(moved[kind]), dirichlet.log_concentration(cosines)


WAYS = {
    "closed form, fp32": lambda a, b: closed_form(a, b),
    "closed form, fp64": lambda a, b: closed_form(a.double(), b.double()),
    "ours, fp32": lambda a, b: dirichlet.kl_divergence(a, b),
    "ours, fp64": lambda a, b: dirichlet.kl_divergence(a.double(), b.double()),
}


def measure(kind: str, classes: int, rows: int, seed: int, device: str | None) -> list[dict]:
    """One dict per way of computing the KL; timed where a device is given."""
    log_a, log_b = pairs(kind, classes, rows, torch.Generator().manual_seed(seed))
    truth = torch.tensor([exact(a, b) for a, b in zip(log_a, log_b)], dtype=torch.float64)
    log_p, log_q = log_a.double().log_softmax(-1), log_b.double().log_softmax(-1)
    identity = dirichlet.log_alpha0(log_b.double()).exp() * (log_q.exp() * (log_q - log_p)).sum(-1)
    table = []
    for name, way in WAYS.items():
        values = way(log_a, log_b).double()
        row = {"pairs": kind, "classes": classes, "way": name, "median_kl": truth.median().item()}
        row["published_loss"] = PUBLISHED * truth.median().item()
        row["identity_error"] = ((identity - truth) / truth).abs().max().item()
        row["largest_relative_error"] = ((values - truth) / truth).abs().max().item()
        row["share_negative"] = (values < 0).double().mean().item()
        table.append(row | ({"seconds_256": seconds(way, kind, classes, device)} if device else {}))
    return table


def seconds(way, kind: str, classes: int, device: str) -> float:
    """Median of nine forward and backward passes on 256 pairs, after two to warm up."""
    log_a, log_b = (x.to(device) for x in pairs(kind, classes, 256, torch.Generator().manual_seed(0)))
    times = []
    for _ in range(11):
        a = log_a.clone().requires_grad_()
        start = time.perf_counter()
        way(a, log_b).sum().backward()
        a.grad.sum().item()  # waits for the device
        times.append(time.perf_counter() - start)
    return sorted(times[2:])[4]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50, help="pairs of each kind (default: 50)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--time", action="store_true", help="also time each way")
    parser.add_argument("--device", default="cpu", help="where to time (default: cpu)")
    parser.add_argument("--out", help="CSV file; default: standard output")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    kinds = ("attacked", "nearly equal", "evidence")
    device = arguments.device if arguments.time else None
    grid = [(kind, classes) for classes in (10, 200, 1000) for kind in kinds]
    table = [row for pair in grid for row in measure(*pair, arguments.rows, arguments.seed, device)]
    with open(arguments.out, "w", newline="") if arguments.out else sys.stdout as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows({k: f"{v:.3g}" if isinstance(v, float) else v for k, v in row.items()} for row in table)


if __name__ == "__main__":
    main()
