"""Rebuild one folder of results/: train what it needs and lacks, run its sweeps, write its tables, figures and page.

    python benchmarks/study.py main        # any of: python benchmarks/study.py --help

Runs go to runs/ and continue where they stopped; the folder gets cells.csv, run.json, table.md, table.tex, figures and,
where it says so, index.html. Nothing is written by hand but its README.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("tecoa", "pmg-aft", "fare", "tga-zsr", "ucat", "ucat-scaled")
DIALS = (("0.162", "1000"), ("0.07", "1000"), ("0.162", "10000"), ("0.07", "10000"))


@dataclass(frozen=True)
class Study:
    """One folder of results/.

    Attributes:
        runs: run directory -> the suite that fills it.
        layouts: tables to write; None: those that `robustcal bench` writes.
        figures: which to draw: "figures" (those of `robustcal report`), "protocol", "trade-off ATTACK RADIUS", or
            "MODEL/ATTACK", a reliability diagram.
        train: training run -> arguments of `robustcal train`; only what is missing is trained.
        random: open_clip architectures to write to runs/random/ with random weights.
    """

    runs: dict[str, str]
    layouts: str | None = "main,calibration"
    figures: tuple[str, ...] = ("figures",)
    page: bool = True
    train: dict[str, str] | None = None
    random: tuple[str, ...] = ()


SEEDS = {
    f"runs/zoo{'' if seed == 0 else f'-seed-{seed}'}/{method}": f"tiny/{method} --seed {seed}"
    for seed in range(3)
    for method in METHODS
}
#: Seed 0 is bundled. A second base, and two of its fine-tunes.
NATURAL_SEEDS = {f"runs/small-seed-{seed}/{method}": f"small/{method} --seed {seed}" for seed in (1, 2) for method in METHODS} | {
    "runs/small-base-seed-1/clip": "small/clip --seed 1",
    **{
        f"runs/small-base-seed-1/{method}": f"small/{method} --seed 0 --model clip:runs/small-base-seed-1/clip"
        for method in ("tecoa", "ucat")
    },
}
#: Every method's one strength at two more values: a parameter of the objective, or the training radius.
NATURAL_STRENGTHS = {
    f"runs/small-strength/{name}": f"small/{rest} --seed 1"
    for name, rest in {
        "tecoa-radius-0.5": "tecoa --set eps=0.5/255", "tecoa-radius-2": "tecoa --set eps=2/255",
        "pmg-aft-general-0.25": "pmg-aft --objective pmg-aft:general=0.25",
        "pmg-aft-general-4": "pmg-aft --objective pmg-aft:general=4",
        "fare-radius-0.5": "fare --set eps=0.5/255", "fare-radius-2": "fare --set eps=2/255",
        "ucat-weight-1e4": "ucat --objective ucat:weight=1e4", "ucat-weight-1e6": "ucat --objective ucat:weight=1e6",
    }.items()
}  # fmt: skip
NATURAL_ABLATIONS = {
    f"runs/small-ablation/{objective}": f"small/{objective} --seed 0"
    for objective in ("prob-kl-forward", "prob-kl-reverse", "dirichlet-kl-forward")
}
SWEEP = {
    f"runs/ucat-sweep/tau-{tau}-weight-{weight}": f"tiny/ucat --objective ucat:tau={tau}:weight={weight}:evidence=matched"
    for tau, weight in DIALS
}
SHOWN = ("tiny-clip", "tiny-tecoa", "tiny-ucat")
DIAGRAMS = tuple(f"{model}/{attack}" for model in SHOWN for attack in ("pgd", "confidence:goal=max"))
SMALL = ("small-clip", "small-tecoa", "small-ucat")
STUDIES = {
    "tiny": Study({"runs/tiny": "tiny"}, None, tuple(f"{model}/pgd" for model in SHOWN), page=False),
    "main": Study({"runs/main": "tiny-main"}, "main,ablation"),
    "calibration": Study({"runs/main": "tiny-main"}, "calibration,calibrators", ("figures", *DIAGRAMS), page=False),
    "radius": Study({"runs/radius": "tiny-radius"}, "by-eps"),
    "ablation": Study({"runs/ablation": "tiny-ablation"}, "main,ablation,calibration"),
    "seeds": Study({"runs/seeds": "results/seeds/suite.toml"}, "seeds", (), page=False, train=SEEDS),
    "sweep": Study({"runs/sweep": "results/sweep/suite.toml"}, "ablation", (), page=False, train=SWEEP),
    "protocol": Study(
        {"runs/protocol": "tiny-protocol", "runs/protocol-fp16": "tiny-protocol-fp16"}, "main", ("protocol",), page=False
    ),
    "premise": Study({"runs/premise": "results/premise/suite.toml"}, "premise,conformal", (), page=False),
    "corruptions": Study({"runs/corruptions": "corruptions"}, "corruptions", (), page=False),
    "adaptive": Study({"runs/adaptive": "tiny-adaptive"}, "adaptive", (), page=False),
    "full-size": Study(
        {"runs/full-size": "results/full-size/suite.toml"}, "main,calibration", (), page=False, random=("ViT-B-32",)
    ),
    # Photographs: these need TinyImageNet and packs of the other sets below the data root.
    "natural": Study(
        {"runs/natural": "small"}, "main,ablation,calibration,calibrators",
        ("figures", *(f"{model}/{attack}" for model in SMALL for attack in ("pgd", "confidence:goal=gap"))), page=False,
    ),  # 798 cells make a page of 3 MB: `robustcal report runs/natural` writes it
    "natural-radius": Study({"runs/natural-radius": "small-radius"}, "by-eps"),
    "natural-seeds": Study(
        {"runs/natural-seeds": "results/natural-seeds/suite.toml"}, "seeds", (), page=False, train=NATURAL_SEEDS
    ),
    "natural-ablation": Study(
        {"runs/natural-ablation": "results/natural-ablation/suite.toml"}, "main,ablation,calibration", page=False,
        train=NATURAL_ABLATIONS,
    ),
    "natural-strength": Study(
        {"runs/natural-strength": "results/natural-strength/suite.toml"}, "trade-off", ("trade-off pgd 1/255",), page=False,
        train=NATURAL_STRENGTHS | {run: NATURAL_SEEDS[run] for run in NATURAL_SEEDS if run.startswith("runs/small-seed-1")},
    ),
    "natural-trade-off": Study({"runs/natural-trade-off": "small-trade-off"}, "trade-off", ("trade-off pgd 1/255",), page=False),
}
#: The runs that results/leaderboard shows.
BOARD = {"runs/tiny": "tiny", "runs/main": "tiny-main"}


def command(*words: str, fine: tuple[int, ...] = (0,)) -> None:
    """Run `robustcal` with these words, shown first. `fine`: exit statuses to go on after."""
    print("robustcal", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", "robustcal.cli", *words], check=False, cwd=ROOT)
    if done.returncode not in fine:
        raise SystemExit(f"robustcal {words[0]} ended with status {done.returncode}")


def rebuild(name: str) -> None:
    """Everything from training to figures of one folder."""
    study, out = STUDIES[name], ROOT / "results" / name
    for run, arguments in (study.train or {}).items():
        if not (ROOT / run / "card.json").is_file():
            command("train", *arguments.split(), "--out", run)
    for name in study.random:
        folder = ROOT / "runs" / "random" / name
        if not folder.is_dir():
            subprocess.run([sys.executable, str(ROOT / "benchmarks" / "random_clip.py"), name, str(folder)], check=True)
    for run, suite in study.runs.items():
        command("bench", "--suite", suite, "--out", run, "--no-report")
    write(study, out)


def write(study: Study, out: Path) -> None:
    """The folder's files from its runs' records."""
    from robustcal.report import figures, plots
    from robustcal.report.frame import csv_text
    from robustcal.report.report import gather, metrics_for, write_report
    from robustcal.report.style import save, styled
    from robustcal.report.trade_off_plot import trade_off_figure

    results = gather([ROOT / run for run in study.runs], metrics=metrics_for(study.layouts))
    write_report(results, ["md", "tex", *(["html"] if study.page else [])], out, layout=study.layouts)
    if study.page:
        (out / "index.html").rename(out / "page.html")  # the documentation site has the folder's text at index.html
    (out / "cells.csv").write_text(csv_text(results))
    for run in study.runs:
        name = "run.json" if run == next(iter(study.runs)) else f"{Path(run).name}.json"
        (out / name).write_bytes((ROOT / run / "run.json").read_bytes())
    spec_of = {axis: {text: spec for spec, text in results.labels[axis].items()} for axis in ("model", "attack")}
    for wanted in study.figures:
        if wanted == "figures":
            figures.write_figures(results, out, ("png",))
        elif wanted == "protocol":
            from protocol_figures import draw

            draw([ROOT / run for run in study.runs], out)
        elif wanted.startswith("trade-off"):
            _, attack, eps = wanted.split()
            with styled():
                figure = trade_off_figure(results, spec_of["attack"][attack], eps)
                save(figure, out / "figures" / "trade-off", ("png",))
        else:
            model, _, attack = wanted.partition("/")
            with styled():
                figure = plots.reliability_figure(results, spec_of["model"][model], spec_of["attack"][attack])
                save(figure, out / "reliability" / figures.file_name(f"{model}-{attack}"), ("png",))


def leaderboard(only_write: bool = False) -> None:
    """results/leaderboard/site: the runs of `BOARD` packed, some of their records made again, and shown."""
    from robustcal.leaderboard.card import Card, read_card
    from robustcal.leaderboard.pack import card_text, names_of
    from robustcal.records.store import Run

    out, packed = ROOT / "results" / "leaderboard", ROOT / "runs" / "leaderboard"
    packed.mkdir(parents=True, exist_ok=True)
    card = read_card((out / "card.toml").read_bytes(), "card.toml")
    files: list[str] = []
    for run, suite in BOARD.items():
        if not only_write:
            command("bench", "--suite", suite, "--out", run, "--no-report")
        held = Run.open(ROOT / run)
        there = names_of(held, held.cells()).values()
        own, submission, signoff = (packed / f"{Path(run).name}.{end}" for end in ("toml", "zip", "json"))
        own.write_text(card_text(Card(card.submitter, tuple(model for model in card.models if model.model in there))))
        command("pack", run, "--card", str(own), "--out", str(submission))
        if not only_write or not signoff.is_file():
            words = ("verify", run, "--samples", "64", "--seed", "0", "--by", card.submitter, "--out", str(signoff))
            command(*words, fine=(0, 2))  # 2: not all of it can be looked at
        files += [str(submission), str(signoff)]
    command("leaderboard", *files, "--out", str(out / "site"), "--title", "The bundled models", "--published", "ucat")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=[*STUDIES, "leaderboard"])
    parser.add_argument("--only-write", action="store_true", help="from the records that are there")
    options = parser.parse_args()
    if options.study == "leaderboard":
        leaderboard(options.only_write)
    elif options.only_write:
        write(STUDIES[options.study], ROOT / "results" / options.study)
    else:
        rebuild(options.study)


if __name__ == "__main__":
    main()
