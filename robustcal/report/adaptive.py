"""The layout `adaptive`: test-time defences on a ladder of attackers, from one who ignores them to one who reckons with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..metrics.defences import averages as averages_draws
from ..registry import parse_spec
from .averages import SINGLE, Averages, Member
from .captions import protocol
from .evaluate import Measured, Results
from .parts import at_radius, radii, versions_of
from .standard import source_of
from .stats import Replicates, difference
from .tables import Column, Entry, Row, Table
from .words import flag_meanings

#: The rungs in order, with what the attacker does.
RUNGS: Mapping[str, str] = {
    "static": "crafted on the model behind the defence",
    "transfer": "crafted on another model",
    "deployed": "gradients of the defence as it is deployed, one draw",
    "EOT": "their mean over other draws",
    "straight-through": "gradients of the model behind it, at the defended logits",
    "black box": "queries alone",
}
WORST = "worst"


def rung_of(cell: Measured) -> str | None:
    """The rung of an attacked cell; None of controls, of shifts, and of attacks on the confidence."""
    if cell.meta.threat.goal not in ("untargeted", "targeted"):
        return None
    if cell.kind == "transfer":
        return "static" if source_of(cell.attack) == behind(cell.meta.model) else "transfer"
    if cell.kind == "black-box":
        return "black box"
    if cell.kind != "white-box":
        return None
    if parse_spec(cell.meta.attack).name == "bpda":
        return "straight-through"
    return "EOT" if averages_draws(cell.meta) else "deployed"


def behind(model: str) -> str:
    """The model behind a defence, from its spec; of a model without one, itself."""
    return str(parse_spec(model).params.get("model", parse_spec(model).name))


def defended(results: Results) -> list[str]:
    """The models whose runs remember a defence, in order."""
    found = {cell.model for cell in results.cells if cell.kind != "worst" and cell.run.remarks(cell.id).get("defence")}
    return [model for model in results.values("model") if model in found]


class Ladder:
    """The numbers of all models at one radius, averages over the datasets that all of them have."""

    def __init__(self, results: Results, eps: str):
        self.results, self.eps, self.averages = results, eps, Averages(results, SINGLE)
        self.cells = [c for c in results.cells if c.eps == eps and c.meta.task == SINGLE and c.kind != "worst" and rung_of(c)]

    def at(self, model: str, rung: str) -> Replicates | None:
        """The accuracy on one rung: of several attacks there, under the one that leaves least."""
        if rung == "clean":
            return self.averages.clean(model)
        names: list[Member] = [(c.attack, self.eps) for c in self.cells if c.model == model and rung_of(c) == rung]
        names = [(WORST, self.eps)] if rung == WORST else list(dict.fromkeys(names))
        found = [numbers for name in names if (numbers := self.averages.get(model, *name)) is not None]
        return min(found, key=lambda numbers: numbers.values["accuracy"]) if found else None

    def flags(self, model: str, rung: str) -> tuple[str, ...]:
        """The flags of the rung's cells that speak of defences."""
        cells = [c for c in self.cells if c.model == model and rung_of(c) == rung]
        return tuple(flag for flag in ("not-adaptive", "robust-above-clean") if any(flag in cell.flags for cell in cells))

    def gap(self, of: tuple[str, str], less: tuple[str, str]) -> Entry:
        """A paired difference of accuracy between two (model, rung)."""
        one, other = self.at(*of), self.at(*less)
        if one is None or other is None:
            return Entry()
        found = difference(other, one, "accuracy")
        return Entry(*found[:3], rank="significant" if found.p < 0.05 else "", signed=True)


def adaptive_tables(results: Results) -> list[Table]:
    """Per radius: accuracy on every rung with what is gained over the model behind the defence; and what each rung takes."""
    shown = defended(results)
    if not shown:
        return []
    tables = []
    for eps in radii(results):
        ladder = Ladder(results, eps)
        rungs = [rung for rung in RUNGS if any(rung_of(cell) == rung for cell in ladder.cells)]
        if rungs:
            tables += [_accuracies(ladder, shown, rungs), _taken(ladder, shown, rungs)]
    return tables


def base_of(results: Results, model: str) -> str | None:
    """The whole name, in the results, of the model behind a defence; None where it was not run."""
    specs = {cell.model: cell.meta.model for cell in results.cells}
    wanted = behind(specs[model])
    return next((name for name, spec in specs.items() if name != model and wanted in (spec, parse_spec(spec).name)), None)


def _accuracies(ladder: Ladder, shown: Sequence[str], rungs: Sequence[str]) -> Table:
    results, bases = ladder.results, {model: base_of(ladder.results, model) for model in shown}
    rows, remarks = list[Row](), list[str]()
    for base in dict.fromkeys(bases.values()):
        first = True
        for model in ([base] if base else []) + [model for model in shown if bases[model] == base]:
            entries = []
            for rung in ("clean", *rungs, WORST):
                numbers = ladder.at(model, rung)
                flags = ladder.flags(model, rung)
                entries.append(Entry(*numbers.interval("accuracy"), flags) if numbers else Entry())
            gains = [ladder.gap((model, r), (base, r)) if base and model != base else Entry() for r in ("static", WORST)]
            label = results.labels["model"][model]
            rows.append(Row((label,), (*entries, *gains), rule=first and bool(rows)))
            first = False
            if base and model != base:
                remarks += told(label, results.labels["model"][base], *gains)
    columns = [Column(rung, "Accuracy", True, "higher", True) for rung in ("clean", *rungs, WORST)]
    columns += [Column(rung, "Gain over the model behind", True, "higher", True) for rung in ("static", WORST)]
    about = "; ".join(f"{rung}: {RUNGS[rung]}" for rung in rungs)
    short = (
        f"Test-time defences {at_radius(ladder.eps)}: accuracy (in %) on each rung of a ladder of attackers [95 % interval]."
        f" {about}. Of several attacks on a rung, the one that leaves least. worst: per sample, over all of them."
        " Gain: paired difference from the model behind the defence (†: significant at the 5 % level)."
    )
    return _table(ladder, "adaptive", short, columns, rows, remarks)


def _taken(ladder: Ladder, shown: Sequence[str], rungs: Sequence[str]) -> Table:
    rows = []
    for model in shown:
        entries = tuple(ladder.gap((model, rung), (model, "clean")) for rung in (*rungs, WORST))
        rows.append(Row((ladder.results.labels["model"][model],), entries))
    short = (
        f"What each rung takes {at_radius(ladder.eps)}: accuracy under attack less clean accuracy, paired, in points"
        " [95 % interval]. †: significant at the 5 % level."
    )
    return _table(ladder, "adaptive-taken", short, [Column(rung, "", True, "", True) for rung in (*rungs, WORST)], rows)


def told(model: str, base: str, static: Entry, worst: Entry) -> list[str]:
    """What is left of a gain, in words; nothing where it was not measured."""
    if static.value is None or worst.value is None or worst.lo is None or worst.hi is None:
        return []
    gain, left = f"{100 * static.value:+.1f}", f"{100 * worst.value:+.1f} [{100 * worst.lo:+.1f}, {100 * worst.hi:+.1f}]"
    return [f"{model}: {gain} points over {base} under the static attack, {left} under the worst of the ladder."]


def _table(
    ladder: Ladder, name: str, short: str, columns: Sequence[Column], rows: Sequence[Row], remarks: Sequence[str] = ()
) -> Table:
    caption = f"{short} {protocol([cell.meta for cell in ladder.cells], versions_of(ladder.results))}"
    whole = f"{name}-{ladder.eps.replace('/', '-')}"
    return Table(whole, caption, ("Model",), tuple(columns), tuple(rows), flag_meanings(), short=short, remarks=tuple(remarks))
