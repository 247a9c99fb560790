"""What the command line understands."""

from __future__ import annotations

import argparse
from typing import Any

from ..types import UserError

EPILOG = """examples:
  robustcal bench                                        the embedded default (suite tiny)
  robustcal bench --models clip ucat --attacks pgd:steps=20 --datasets digits --eps 1/255,4/255
  robustcal bench --models clip:ViT-B-32/openai --attacks clean pgd:steps=100:step=1/255 --datasets cifar10
  robustcal report runs/bench --format md,tex
  robustcal ls attacks
"""


FORMATS = "text, md, tex, csv, json, html, diagrams, figures, cells (default: text)"
LAYOUTS = (
    "main, harmonic, calibration, ablation, by-eps, transfer, coco, calibrators, conformal, premise, trade-off, prompts,"
    " prompt-transfer, corruptions, adaptive, claims, ood, minimal-norm, metrics, seeds, versus, costs, all"
    " (default: those that have cells)"
)


#: Options that several commands have: any number of values, a file of one's own, and where datasets lie.
MANY: dict[str, Any] = {"nargs": "+", "action": "extend"}
PLUGIN: dict[str, Any] = {"action": "append", "default": [], "metavar": "FILE.py"}
DATA: dict[str, Any] = {"metavar": "DIR", "help": "where datasets lie (default: $ROBUSTCAL_DATA)"}


class Parser(argparse.ArgumentParser):
    """argparse, but an error is one line."""

    def error(self, message: str) -> Any:
        raise UserError(f"{message} (see: {self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = Parser(
        prog="robustcal", description=__import__("robustcal").__doc__, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    top.add_argument("--version", action="store_true", help="print the version and exit")
    there_are = "bench | report | verify | pack | unpack | leaderboard | cite | train | push | ls | check | completion"
    commands = top.add_subparsers(dest="command", metavar=there_are, parser_class=Parser)
    _bench_options(commands.add_parser("bench", help="sweep models x attacks x datasets into records, tables and diagrams"))
    report = commands.add_parser("report", help="tables, figures and page from records; recomputes no attack")
    report.add_argument("runs", nargs="+", metavar="RUN", help="run directories; several are merged")
    report.add_argument("--format", **MANY, help=FORMATS)
    report.add_argument("--layout", metavar="NAME", help=LAYOUTS)
    report.add_argument("--compare", metavar="ucat", help="published numbers beside the measured ones: of ucat, fare or tecoa")
    report.add_argument("--metrics", **MANY, default=[], metavar="SPEC", help="further metrics, of: robustcal ls metrics")
    report.add_argument("--plugin", **PLUGIN, help="a metric of your own; the file is run")
    report.add_argument("--explain", metavar="CELL", help="print everything that made one number")
    report.add_argument("--images", metavar="CELL", help="draw a cell's worst images, attacked again")
    report.add_argument("--top", type=int, default=12, metavar="K", help="how many of them (default 12)")
    report.add_argument("--out", metavar="DIR", help="where files go (default: RUN/report)")
    report.add_argument("--versus", metavar="MODEL", help="all other models against this one: differences, tests, ratios")
    report.add_argument("--bins", metavar="N", help="of every calibration number and diagram (default 15)")
    report.add_argument("--rename", action="append", default=[], metavar="OLD=NEW", help="another label, for this report")
    report.add_argument("--title", default="", metavar="TEXT", help="heading of the page (default: robustcal results)")
    report.add_argument("--caption", default="full", metavar="full|short", help="with the whole protocol, or in a line")
    _verify_options(commands.add_parser("verify", help="make drawn records of a run again and say what follows for all"))
    cite = commands.add_parser("cite", help="BibTeX of every model, attack and data set of a run")
    cite.add_argument("runs", nargs="+", metavar="RUN")
    listing = commands.add_parser("ls", help="what there is, and where each name comes from")
    listing.add_argument("family", nargs="?", metavar="FAMILY",
                         help="models, attacks, datasets, metrics, objectives, suites, recipes, layouts")  # fmt: skip
    listing.add_argument("--verbose", action="store_true", help="also where each name comes from")
    listing.add_argument("--json", action="store_true", help="a list of objects with name, family, origin ...")
    listing.add_argument("--data-root", **DATA)
    listing.add_argument("--plugin", **PLUGIN, help="a plugin file of your own; it is run")
    check = commands.add_parser("check", help="what works here, what is missing, and how to get it")
    check.add_argument("what", nargs="*", metavar="SPEC", help="models, datasets, environment, or a model spec (default: all)")
    check.add_argument("--json", action="store_true")
    check.add_argument("--data-root", **DATA)
    check.add_argument("--plugin", **PLUGIN, help="a plugin file of your own; it is run")
    completion = commands.add_parser("completion", help="print a script that completes names and options in a shell")
    completion.add_argument("shell", choices=["bash", "zsh"])
    _sharing_options(commands)
    _train_options(commands.add_parser("train", help="fine-tune (or pre-train) a model from a recipe"))
    return top


def _bench_options(bench: argparse.ArgumentParser) -> None:
    def many(name: str, text: str) -> None:
        bench.add_argument(name, **MANY, metavar="SPEC", help=text)

    many("--models", 'model specs, such as: tiny-clip tiny-ucat clip:ViT-B-32/openai "Our model=ucat:runs/my-run"')
    many("--attacks", "attack specs, such as: clean pgd:steps=100 torchattacks:DIFGSM")
    many("--datasets", "dataset specs, such as: digits cifar10 folder:PATH webdataset:PATH")
    many("--eps", "radii in [0, 1] pixel units, such as: 1/255 4/255")
    bench.add_argument("--limit", type=int, metavar="N", help="the first N samples of each dataset's one seeded order")
    bench.add_argument("--until", metavar="METRIC=WIDTH",
                       help="more samples until 95 %% intervals are this narrow, like ece=0.02")  # fmt: skip
    bench.add_argument("--strict", action="store_true", help="stop at the first model, dataset or cell that fails")
    bench.add_argument("--seed", type=int, help="seed of attack noise and subsets (default 0)")
    bench.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (auto: all GPUs, else the CPU)")
    bench.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"],
                       help="of the attack's search; predictions are always verified in fp32")  # fmt: skip
    bench.add_argument("--batch-size", default="auto", metavar="N|auto", help="images per pass; does not change the result")
    bench.add_argument("--workers", type=int, metavar="N", help="worker processes (default: one per GPU, or per CPU core)")
    bench.add_argument("--suite", metavar="NAME|FILE.toml", help="a named sweep; what you give beside it replaces its part")
    bench.add_argument("--plugin", **PLUGIN,
                       help="a model, attack, dataset ... of your own: the file is run, with your rights")  # fmt: skip
    bench.add_argument("--data-root", **DATA)
    bench.add_argument("--out", metavar="RUN", help="run directory; the same one continues (default runs/bench)")
    bench.add_argument("--engine", default="local", choices=["local", "ray"], help="this machine, or a Ray cluster")
    bench.add_argument("--skip-unreadable", action="store_true", help="leave out images that do not decode (flagged)")
    bench.add_argument("--dry-run", action="store_true", help="print the plan and an estimate of time, compute nothing")
    bench.add_argument("--quiet", action="store_true", help="print the tables, failures and warnings only")
    bench.add_argument("--verbose", action="store_true", help="print a line for every shard")
    bench.add_argument("--no-report", action="store_true", help="write records and cells.csv only")


def _verify_options(verify: argparse.ArgumentParser) -> None:
    verify.add_argument("run", metavar="RUN")
    verify.add_argument("--samples", default="64", metavar="N", help="records made again (default 64)")
    verify.add_argument("--seed", type=int, help="of the draw (default: one that nobody could know, printed)")
    verify.add_argument("--stronger", action="store_true", help="attack drawn survivors with far more; takes longer")
    verify.add_argument("--cells", **MANY, default=[], metavar="CELL",
                        help="of these cells: beginnings of ids, or parts of titles such as digits")  # fmt: skip
    verify.add_argument("--table", metavar="FILE.csv", help="numbers said to be of this run (default: RUN/cells.csv)")
    verify.add_argument("--by", default="", metavar="NAME", help="who checks, for the sign-off")
    verify.add_argument("--out", metavar="FILE.json", help="write the sign-off that pack and leaderboard show")
    verify.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    verify.add_argument("--data-root", **DATA)
    verify.add_argument("--plugin", **PLUGIN, help="what the run used; the file is run")


def _sharing_options(commands: Any) -> None:
    pack = commands.add_parser("pack", help="one file of a run, for a leaderboard: its records, specs, versions, and a card")
    pack.add_argument("run", nargs="?", metavar="RUN")
    pack.add_argument("--out", metavar="FILE", help="the submission to write")
    pack.add_argument("--card", metavar="CARD.toml", help="name, authors, paper, training data, link and licence of its models")
    pack.add_argument("--template", action="store_true", help="print a card to fill in, for the models of RUN")
    pack.add_argument("--logits", action="store_true", help="with the logits, so that others can compute further metrics")
    pack.add_argument("--signoff", metavar="FILE", help="what robustcal verify wrote about this run")
    unpack = commands.add_parser("unpack", help="a submission as a run, all of it checked: to verify or to report")
    unpack.add_argument("file", metavar="FILE")
    unpack.add_argument("--out", required=True, metavar="RUN")
    board = commands.add_parser("leaderboard", help="a static site from submissions")
    board.add_argument("files", nargs="*", metavar="FILE", help="submissions, and sign-offs of robustcal verify (*.json)")
    board.add_argument("--out", required=True, metavar="DIR", help="where the site goes")
    board.add_argument("--published", metavar="ucat", help="published tables too, as rows that nobody checked")
    board.add_argument("--title", default="robustcal leaderboard", metavar="TEXT")
    push = commands.add_parser("push", help="put a trained run on the hub, its results in the model card")
    push.add_argument("run", metavar="RUN", help="a run of robustcal train")
    push.add_argument("--repo", required=True, metavar="ORG/NAME")
    push.add_argument("--results", **MANY, default=[], metavar="RUN", help="runs of robustcal bench that measured it")
    push.add_argument("--card", metavar="CARD.toml", help="as for pack: its first model")
    push.add_argument("--dry-run", action="store_true", help="print the model card; nothing is sent")


def _train_options(train: argparse.ArgumentParser) -> None:
    train.add_argument("recipe", metavar="RECIPE", help="a recipe name or FILE.toml, see: robustcal ls recipes")
    for name, text in (("model", "model to start from"), ("objective", "objective spec")):
        train.add_argument(f"--{name}", metavar="SPEC", help=text)
    train.add_argument("--dataset", nargs="+", metavar="SPEC", help="source dataset; for pre-training one or several")
    train.add_argument("--epochs", type=float, help="passes over the source data")
    train.add_argument("--steps", type=int, help="optimizer steps, instead of epochs")
    said = "other settings of the recipe: lr=8e-4"
    train.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help=said)
    train.add_argument("--out", metavar="RUN", help="run directory; the same one continues")
    train.add_argument("--seed", type=int)
    train.add_argument("--device", default="auto")
    train.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    train.add_argument("--log", default="text", choices=["text", "json"], help="a bar and tables, or one JSON object per event")
    train.add_argument("--track", choices=["tensorboard", "wandb"], help="draw the curves there too (pip install it)")
    train.add_argument("--plugin", **PLUGIN, help="an objective or dataset of your own; it is run")
    train.add_argument("--data-root", **DATA)
