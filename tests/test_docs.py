"""The documentation: every block runs or says why not, every link leads somewhere, the site builds without a warning."""

import ast
import csv
import json
import re
import subprocess
import sys
import tomllib

import pytest
import torch
from doc_blocks import (
    LANGUAGES,
    NEEDS,
    PAGES,
    ROOT,
    blocks,
    check_commands,
    clean_registry,
    links,
    run_bash,
    run_python,
)  # fmt: skip
from linear_model import linear_classifier, noise, prepare, samples
from synthetic_run import make_run

from robustcal import registry
from robustcal.cli import main, parser
from robustcal.sweep import local
from robustcal.types import RECORD_COLUMNS

torch.set_num_threads(1)
EXAMPLES = ROOT / "docs" / "examples"
BY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
#: Words that start a command; a block that shows one must be declared as bash, so that it is run or marked.
COMMANDS = ("robustcal ", "python ", "torchrun ", "srun ", "sbatch ", "ray ")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, with `docs` as in the repository; one worker, in this process; plugins forgotten after."""
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTCAL_OFFLINE", "1")
    monkeypatch.setattr(local, "workers_for", lambda device, pending, asked=None: [device])
    with clean_registry():
        yield tmp_path


@BY_PAGE
def test_blocks_run(page, folder):
    """In order, in one folder and one namespace, as a reader would."""
    found = blocks(page)
    if any("runs/tiny" in block.text for block in found):
        make_run(folder / "runs" / "tiny", models=("tiny-clip", "tiny-ucat"), radii=("1/255",), n=40)
    names = {"__name__": "__docs__"}
    for block in found:
        if block.language == "toml":
            tomllib.loads(block.text)
        elif block.needs:
            check_commands(block) if block.language == "bash" else compile(block.text, block.where, "exec")
        elif block.language == "python":
            printed = run_python(block, names)
            assert block.prints is None or printed.split() == block.prints.split(), f"{block.where} prints {printed}"
        elif block.language == "bash":
            run_bash(block)


@BY_PAGE
def test_blocks_are_declared(page):
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.where}: unknown language '{block.language}'"
        assert block.needs <= NEEDS, f"{block.where}: unknown reason {set(block.needs) - NEEDS}"
        if block.language in ("", "text") and not block.text.startswith("#!"):  # a script is a file, not a command
            hidden = [line for line in block.text.splitlines() if line.strip().removeprefix("$ ").startswith(COMMANDS)]
            assert not hidden, f"{block.where}: '{hidden[0]}' is a command; make the block bash"


def test_the_notebook_runs(folder):
    """Its code cells in order, as a reader would run them; what a cell ends with can be shown."""
    notebook = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())
    assert notebook["nbformat"] == 4 and not any(cell.get("outputs") for cell in notebook["cells"]), "outputs are not kept"
    names = {"__name__": "__notebook__"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            *body, last = ast.parse("".join(cell["source"])).body
            exec(compile(ast.Module(body, []), "notebook", "exec"), names)
            if isinstance(last, ast.Expr):
                shown = eval(compile(ast.Expression(last.value), "notebook", "eval"), names)
                assert shown is None or repr(shown)
            else:
                exec(compile(ast.Module([last], []), "notebook", "exec"), names)
    assert set(names["cells"]["model"]) == {"tiny-clip", "tiny-tecoa", "Ours"} and len(names["cells"]) >= 18
    assert all(path.is_file() for path in names["made"].paths)
    assert 0 <= names["after"].compute()["accuracy"] <= names["before"].compute()["accuracy"]


def test_examples_on_the_pages_are_the_files():
    """A code host shows a page as it is, so an example's text stands in it: the same, to the letter, as the file that runs."""
    copies = [block for page in PAGES for block in blocks(page) if block.source]
    assert {block.source for block in copies} == {path for path in EXAMPLES.iterdir() if path.suffix in (".py", ".toml")}
    for block in copies:
        assert block.text == block.source.read_text(), f"{block.where} is not {block.source.name}"
    assert not any("--8<--" in page.read_text() for page in PAGES)


def test_the_gallery_shows_every_figure_of_the_results():
    gallery = ROOT / "docs" / "gallery.md"
    shown = {(gallery.parent / link).resolve() for link in links(gallery) if link.endswith(".png")}
    assert shown == set((ROOT / "results").rglob("*.png"))


@BY_PAGE
def test_links_lead_somewhere(page):
    for link in links(page):
        address, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            assert link.startswith(("https://", "mailto:")), f"{page}: {link}"
            continue
        target = (page.parent / address).resolve() if address else page
        assert target.exists(), f"{page.relative_to(ROOT)}: no such file: {link}"
        if anchor and target.suffix == ".md":
            titles = re.findall(r"^#+\s+(.*?)\s*$", target.read_text(), flags=re.MULTILINE)
            slugs = {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}
            assert anchor in slugs, f"{page.relative_to(ROOT)}: no such section: {link}"


def test_the_site_builds_without_a_warning_and_needs_no_network(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    pytest.importorskip("material")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if not line.startswith("INFO"))
    loads = re.compile(r'<(?:script|img|iframe)[^>]*\ssrc="(https?:)?//|<link[^>]*rel="(?:stylesheet|preconnect)"[^>]*href="(?:https?:)?//')
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 12
    for page in pages:
        text = page.read_text()
        assert not loads.search(text), f"{page.name} loads something from elsewhere"
        assert "arithmatex" not in text, f"{page.name} has a formula that was not converted"
    assert "<math" in (tmp_path / "site" / "objectives.html").read_text()


def test_the_table_of_columns_is_that_of_the_records():
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", (ROOT / "docs" / "records.md").read_text(), flags=re.MULTILINE)
    assert {name: meaning for name, meaning in rows if name in RECORD_COLUMNS} == RECORD_COLUMNS


def test_the_page_of_the_command_line_has_every_option_and_no_other():
    commands = next(action.choices for action in parser()._actions if action.dest == "command")
    sections = re.split(r"^## robustcal (\w+)\n", (ROOT / "docs" / "cli.md").read_text(), flags=re.MULTILINE)[1:]
    page = {name: set(re.findall(r"^\| `(--[\w-]+)`", text, flags=re.MULTILINE)) for name, text in zip(sections[::2], sections[1::2])}
    own = {name: {option for action in command._actions for option in action.option_strings if option.startswith("--")}
           for name, command in commands.items()}  # fmt: skip
    assert page == {name: options - {"--help"} for name, options in own.items()}


def test_examples_are_seen_by_ls(folder, capsys):
    files = sorted(EXAMPLES.glob("*.py"))
    assert len(files) >= len(registry.FAMILIES)
    options = [word for path in files for word in ("--plugin", str(path))]
    assert main(["ls", "--json", *options]) == 0
    origins = {row["origin"]: row for row in json.loads(capsys.readouterr().out)}
    for path in files:
        assert origins[str(path)]["name"] == path.stem.replace("_", "-")
        assert origins[str(path)]["summary"]
    assert {origins[str(path)]["family"] for path in files} == set(registry.FAMILIES)


def test_a_model_and_an_attack_of_the_examples_stand_in_the_table(folder, capsys):
    """What the pages promise a newcomer: one file each, no edit, a row in the table."""
    plugins = ["--plugin", "docs/examples/palette.py", "--plugin", "docs/examples/shrink.py"]
    sweep = ["--models", "palette", "palette:scale=1", "--attacks", "clean", "shrink", "--datasets", "world-colors"]
    assert main(["bench", *plugins, *sweep, "--eps", "8/255", "--limit", "60", "--no-report", "--out", "run"]) == 0
    with open("run/cells.csv") as file:
        rows = {(row["model"].split(":")[1], row["attack"].split(":")[0]): row for row in csv.DictReader(file)}
    warm, cold = rows["scale=4.0", "clean"], rows["scale=1.0", "clean"]
    assert float(warm["accuracy"]) == float(cold["accuracy"]) > 3 / 12, "better than chance, whatever the scale"
    assert float(warm["ece"]) != float(cold["ece"])
    assert float(rows["scale=4.0", "shrink"]["accuracy"]) < float(warm["accuracy"])
    assert all(row["flags"] == "" for row in rows.values())
    capsys.readouterr()
    assert main(["report", "run", "--layout", "by-eps"]) == 0
    table = capsys.readouterr().out
    assert "palette" in table and "shrink" in table


def test_the_attack_of_the_examples_finds_the_nearest_adversarial_point(folder):
    registry.load_plugin_file(EXAMPLES / "shrink.py")
    images, labels, distance = samples(8)
    attack, _, _ = prepare("shrink", distance["linf"] * 1.01)
    adversarial = attack(linear_classifier(), images, labels, noise(8))
    assert (linear_classifier()(adversarial).argmax(1) != labels).all()


def test_the_dataset_of_the_examples_keeps_the_protocol(folder):
    registry.load_plugin_file(EXAMPLES / "stripes.py")
    data = registry.datasets.build("stripes:size=12")
    batch, alone = data.read([7, 2]), data.read([2])
    assert batch.ids == (data.ids[7], data.ids[2]) and torch.equal(batch.images[1], alone.images[0])
    assert batch.images.shape == (2, 3, 32, 32) and batch.images.dtype == torch.float32
    assert batch.images.min() >= 0 and batch.images.max() <= 1
    assert registry.datasets.build("stripes:width=3").identity != data.identity


def test_a_hidden_command_and_a_false_link_are_found(tmp_path):
    page = ROOT / "docs" / "index.md"
    assert links(page) and blocks(page)
    wrong = tmp_path / "wrong.md"
    wrong.write_text("[x](nowhere.md) `[y](no)`\n\n<!-- needs: gpu -->\n```bash\nrobustcal bench \\\n  --models tiny-clip\n```\n")
    (block,) = blocks(wrong)
    assert block.needs == {"gpu"} and block.commands == [["robustcal", "bench", "--models", "tiny-clip"]]
    assert links(wrong) == ["nowhere.md"]
