"""The page with many models of long names, nine radii and sixteen data sets: no text on another, none outside its place."""

from __future__ import annotations

from dataclasses import replace

import pytest
from browser import CHROMIUM, Browser
from synthetic_run import make_run

from robustcal.report.evaluate import Results
from robustcal.report.report import gather
from robustcal.report.site import page

RADII = ("0.5/255", "1/255", "2/255", "3/255", "4/255", "6/255", "8/255", "12/255", "16/255")
STORED = ("1/510", *RADII[1:])  # as fractions, which records hold
LONG = [f"Checkpoint {i:02d} of the adversarial fine-tunings"[:40].ljust(40, "x") for i in range(14)]
ODD = ["<b>bold</b><script>window.hacked = 1</script>", "$\\alpha$ & \\textbf{TeX} 50 %", "我们的方法比较模型鲁棒性我们的方法比较模型鲁棒性", "نموذجنا", "W" * 40]
WIDTHS = [(1280, False), (390, True)]

#: Every text that can be seen, line by line: what lies on what, and what leaves the box that should hold it. A box that
#: scrolls holds what lies in its scrolled extent; what a table keeps in view above the rest is not on it.
FAULTS = r"""(() => {
  const seen = e => e.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const root = document.querySelector('dialog[open]') || document.body;
  const texts = [], wrong = [], walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const holder = node.parentElement;
    if (!node.data.trim() || !seen(holder) || holder.closest('script, style, noscript, option, title, dialog:not([open])')) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const r of range.getClientRects()) {
      if (r.width > 0.5 && r.height > 0.5) texts.push({ text: node.data.trim().slice(0, 50), r, holder });
    }
  }
  const room = e => {
    const outer = e.parentElement.closest('.scroll');
    return outer && e.closest('table') ? { x0: outer.getBoundingClientRect().left - outer.scrollLeft, x1: outer.getBoundingClientRect().left - outer.scrollLeft + outer.scrollWidth }
      : { x0: 0, x1: document.documentElement.clientWidth };
  };
  for (const { text, r, holder } of texts) {
    const box = room(holder), own = holder.closest('td, th, .card, figure, figcaption, li, summary, label');
    if (r.left < box.x0 - 1 || r.right > box.x1 + 1) wrong.push(`'${text}' leaves the page: ${r.left} to ${r.right}`);
    const place = own && own.getBoundingClientRect();
    if (place && (r.left < place.left - 1 || r.right > place.right + 1 || r.top < place.top - 1 || r.bottom > place.bottom + 1)) wrong.push(`'${text}' leaves its ${own.tagName}`);
    const svg = holder.closest('svg'), canvas = svg && svg.getBoundingClientRect();
    if (canvas && (r.left < canvas.left - 0.5 || r.right > canvas.right + 0.5 || r.top < canvas.top - 1 || r.bottom > canvas.bottom + 1)) wrong.push(`'${text}' leaves its chart`);
  }
  const sticky = e => e.closest('thead th, tbody th, .bar');
  texts.sort((a, b) => a.r.top - b.r.top);
  for (let i = 0; i < texts.length; i++) {
    for (let k = i + 1; k < texts.length && texts[k].r.top < texts[i].r.bottom - 1; k++) {
      const a = texts[i], b = texts[k], slack = 1.5;
      const clipped = (one, other) => one.holder.closest('.scroll') !== other.holder.closest('.scroll');
      if (sticky(a.holder) !== sticky(b.holder) && (sticky(a.holder) || sticky(b.holder)) && a.holder.closest('table') === b.holder.closest('table')) continue;
      if (clipped(a, b) && (a.holder.closest('.scroll') || b.holder.closest('.scroll')).scrollHeight > 1) {
        const inside = t => { const s = t.holder.closest('.scroll'); if (!s) return t.r; const c = s.getBoundingClientRect();
          return { left: Math.max(t.r.left, c.left), right: Math.min(t.r.right, c.right), top: Math.max(t.r.top, c.top), bottom: Math.min(t.r.bottom, c.bottom) }; };
        a.v = inside(a); b.v = inside(b);
      } else { a.v = a.r; b.v = b.r; }
      const wide = Math.min(a.v.right, b.v.right) - Math.max(a.v.left, b.v.left), tall = Math.min(a.v.bottom, b.v.bottom) - Math.max(a.v.top, b.v.top);
      const small = Math.min(a.r.height, b.r.height);
      if (wide > slack && tall > 0.35 * small) wrong.push(`'${a.text}' on '${b.text}'`);
    }
  }
  for (const shape of root.querySelectorAll('svg :is(line, path, polyline, polygon, circle, rect)')) {
    const svg = shape.closest('svg').getBoundingClientRect(), r = shape.getBoundingClientRect();
    if (seen(shape) && r.width + r.height && (r.top < svg.top - 1 || r.bottom > svg.bottom + 1 || r.left < svg.left - 1 || r.right > svg.right + 1)) wrong.push(`a ${shape.tagName} leaves its chart`);
  }
  return { texts: texts.length, wrong: [...new Set(wrong)] };
})()"""

#: How every series of the legend looks in grey: shape, dashes, lightness.
LOOKS = """[...document.querySelectorAll('.legend li')].map(li => {
  const mark = li.querySelector('.marker'), [r, g, b] = mark.getAttribute('fill').match(/[0-9a-f]{2}/g).map(x => parseInt(x, 16));
  return [mark.tagName === 'circle' ? 'circle' : mark.getAttribute('points'), li.querySelector('line').getAttribute('stroke-dasharray') || ''].join('|');
})"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Three models on one data set, four images, nine radii; AutoAttack makes `worst` one whose calibration is not valid."""
    run = make_run(
        tmp_path_factory.mktemp("legible") / "run", attacks=("clean", "pgd", "autoattack"), datasets=("digits",), radii=STORED, n=4
    )
    return gather([run.path], resamples=20)


def many(measured, labels, sets=16) -> Results:
    """The same cells under as many models as there are labels, on so many data sets."""
    own = measured.values("model")
    cells = [
        replace(cell, meta=replace(cell.meta, id=f"{cell.id[:6]}{i:02d}{k:02d}"), model=f"model{i}", dataset=f"set{k}")
        for i in range(len(labels)) for k in range(sets) for cell in measured.cells
        if cell.model == own[i % len(own)]
        and (cell.eps in ("0", "1/255") if cell.attack in ("clean", "pgd") else k == 0) | (k == 0 and cell.attack == "pgd")
    ]  # fmt: skip
    given = {"model": {f"model{i}": label for i, label in enumerate(labels)}, "attack": {"pgd": "projected gradient descent, best of 20 steps"}}
    given["dataset"] = {f"set{k}": f"data set {k:02d} with a name of forty letters" for k in range(sets)}
    return Results(cells, given=given)


@pytest.fixture(scope="module")
def crowded(measured, tmp_path_factory):
    path = tmp_path_factory.mktemp("crowded") / "index.html"
    path.write_text(page(many(measured, LONG)))
    return path


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with Browser() as found:
        yield found


def opened(browser, path, width, mobile):
    browser.resize(width, 900, mobile=mobile)
    browser.open(path)
    browser.run("(list.limit = 40, drawCells(), document.querySelectorAll('details').forEach(d => { d.open = true; }))")
    browser.settle()
    return browser


@pytest.mark.parametrize("width, mobile", WIDTHS)
def test_a_crowded_page_can_be_read(browser, crowded, width, mobile):
    board = opened(browser, crowded, width, mobile)
    found = board.run(FAULTS)
    assert found["texts"] > 500 and found["wrong"] == []
    assert board.run("document.documentElement.scrollWidth") == width
    board.run("openDialog(3)")
    board.settle()
    assert board.run(FAULTS)["wrong"] == [] and board.complaints() == []


@pytest.mark.parametrize("width, mobile", WIDTHS)
def test_odd_labels_stay_text_and_in_their_places(browser, measured, tmp_path, width, mobile):
    path = tmp_path / "index.html"
    path.write_text(page(many(measured, ODD, sets=2)))
    board = opened(browser, path, width, mobile)
    assert board.run(FAULTS)["wrong"] == []
    assert board.run("[typeof window.hacked, document.scripts.length, document.querySelectorAll('main b').length]") == ["undefined", 2, 0]
    for selector in ("#board tbody th", "#models h3", ".legend li"):
        shown = board.run(f"[...document.querySelectorAll('{selector}')].map(e => e.textContent)")
        assert sorted(shown) == sorted(many(measured, ODD, 2).labels["model"].values()), selector


def test_a_crowded_page_can_be_read_on_paper(browser, crowded):
    board = opened(browser, crowded, 740, False)  # A4 between its margins
    board.call("Emulation.setEmulatedMedia", media="print")
    board.settle()
    found, wide = board.run(FAULTS), board.run("document.documentElement.scrollWidth")
    names = board.run("Math.max(...[...document.querySelectorAll('#board tbody th')].map(e => e.getClientRects()[0].height))")
    board.call("Emulation.setEmulatedMedia", media="")
    assert found["texts"] > 500 and found["wrong"] == [] and wide == 740 and names < 100


def test_it_opens_on_an_attack_whose_calibration_is_valid(browser, crowded):
    board = opened(browser, crowded, 1280, False)
    assert board.run("page.attacks[board.attack].spec") == "pgd" and board.run("board.eps") == "1/255"
    assert board.run("page.attacks.some(a => a.kind === 'worst')")


def test_every_series_can_be_told_apart_in_grey(browser, crowded):
    board = opened(browser, crowded, 1280, False)
    looks = board.run(LOOKS)
    assert len(looks) == len(LONG) == len({look.split("|")[0] for look in looks})
    assert len({tuple(look) for look in board.run("Array.from({ length: 80 }, (_, i) => [look(i).shape, look(i).dash])")}) == 80
    assert len({tuple(look) for look in board.run("Array.from({ length: 128 }, (_, i) => [look(i).shape, look(i).color])")}) == 128


def test_radii_are_over_255_and_the_ends_are_named(browser, crowded):
    board = opened(browser, crowded, 1280, False)
    named = board.run("[...document.querySelectorAll('#charts figure:nth-child(2) text')].map(t => t.textContent).filter(t => t.endsWith('/255'))")
    assert named[-1] == "16/255" and set(named) < set(RADII) and len(named) >= 4
    ticks = board.run("[...document.querySelectorAll('#charts figure:nth-child(2) line.axis')].length")
    assert ticks == len(RADII) + 2  # 0, and the axis itself
    assert board.run("[...document.querySelectorAll('#c-eps option')].map(o => o.value)") == list(RADII)


def test_flagged_errors_are_ringed_and_others_are_not(browser, measured, tmp_path):
    path = tmp_path / "index.html"
    path.write_text(page(measured))
    board = opened(browser, path, 1280, False)

    def rings(attack, chart):
        board.run(f"(board.attack = page.attacks.findIndex(a => a.spec === '{attack}'), board.eps = '1/255', drawControls(), refresh())")
        found = board.run(f"document.querySelectorAll('#charts figure:nth-child({chart}) .ring').length")
        said = board.run(f"document.querySelector('#charts figure:nth-child({chart}) figcaption').textContent")
        return found, "accuracy-only" in said

    assert rings("autoattack", 1) == (3, True) and rings("autoattack", 3) == (3 * len(RADII), True)
    assert rings("autoattack", 2)[1] is False  # its accuracy is valid
    assert rings("pgd", 1)[1] is False


def test_flags_are_whole_at_the_usual_width(browser, measured, tmp_path):
    path = tmp_path / "index.html"
    path.write_text(page(many(measured, LONG, sets=2)))
    board = opened(browser, path, 1280, False)
    board.type("#c-cells", "autoattack")
    box = "document.querySelector('#cells').parentNode"
    assert board.run(f"{box}.scrollWidth <= {box}.clientWidth")
    last = "document.querySelector('#cells tbody tr td:last-child')"
    assert "accuracy-only" in board.run(f"{last}.textContent")
    assert board.run(f"{last}.getBoundingClientRect().right <= {box}.getBoundingClientRect().right")


def test_the_detector_sees_what_it_is_for(browser, crowded):
    board = opened(browser, crowded, 1280, False)
    board.run("""(() => {
      const put = (text, left) => { const e = document.createElement('p'); e.textContent = text;
        e.style.cssText = `position: absolute; top: 20px; left: ${left}px; width: 300px; margin: 0; white-space: nowrap`; document.body.append(e); };
      put('one over', 400); put('the other', 420); put('out of the page', 1250);
      const line = document.createElementNS('http://www.w3.org/2000/svg', 'line');
      for (const [key, value] of Object.entries({ x1: 10, x2: 10, y1: -80, y2: 20, stroke: 'red' })) line.setAttribute(key, value);
      document.querySelector('#charts svg').append(line);
      document.querySelector('#board thead button').style.cssText = 'white-space: nowrap; width: 10px'; document.querySelector('#board thead th').style.maxWidth = '20px';
    })()""")
    found = "\n".join(board.run(FAULTS)["wrong"])
    for what in ("'one over' on 'the other'", "'out of the page' leaves the page", "a line leaves its chart"):
        assert what in found
