// Sections beside the leaderboard: cards of the models, and layouts as tables. Their numbers come as text, as in every report.
function drawModels() {
  const card = model => make("article", { class: "card" }, make("h3", {}, model.label),
    make("p", { class: "hint" }, model.spec === model.label ? "" : model.spec),
    make("dl", { class: "protocol" }, Object.entries(model.facts).flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)])));
  $("models").replaceChildren(...page.models.map(card));
}

function sectionTable(table) {
  const groups = [], blank = table.labels.length;
  for (const [group] of table.columns) {
    if (groups.length && groups[groups.length - 1].group === group) groups[groups.length - 1].count += 1;
    else groups.push({ group, count: 1 });
  }
  const over = make("tr", {}, make("td", { colspan: blank }), groups.map(one => make("th", { colspan: one.count, scope: "colgroup", class: "over" }, one.group)));
  const heads = make("tr", {}, table.labels.map(label => make("th", { scope: "col", class: "text" }, label)),
    table.columns.map(([, title]) => make("th", { scope: "col" }, title)));
  const number = ([text, interval, rank, flags]) => text === undefined ? make("td", { class: "empty" }, "–")
    : make("td", { class: `plain ${rank}`, title: flags.join(", ") || null }, make("span", { class: "number" }, text), marks(rank, flags),
      interval ? make("small", {}, interval) : null);
  const rows = table.rows.map(row => make("tr", { class: row.rule ? "rule" : null },
    row.labels.map((label, i) => (i === blank - 1 ? make("th", { scope: "row", class: "text" }, label) : make("td", { class: "text" }, label))),
    row.entries.map(number)));
  const named = table.columns.some(([group]) => group);
  const flags = Object.entries(table.flags);
  return make("div", { class: "layout" }, make("p", { class: "hint" }, table.caption),
    table.remarks.length ? make("ul", {}, table.remarks.map(line => make("li", {}, line))) : null,
    make("div", { class: "scroll tall", tabindex: 0, role: "region", "aria-label": table.name }, make("table", {},
      make("thead", {}, named ? over : null, heads), make("tbody", {}, rows))),
    flags.length ? make("dl", { class: "protocol" }, flags.flatMap(([flag, text]) => [make("dt", {}, `⚑ ${flag}`), make("dd", {}, text)])) : null);
}

/** One closed drawer per layout, filled when it is opened first. */
function drawSections() {
  const drawer = section => {
    const body = make("div", {});
    const fill = () => {
      if (body.childNodes.length) return;
      body.append(...(section.tables || []).map(sectionTable));
      if (section.command) body.append(make("p", {}, "Not in this report. To make it: ", make("code", {}, section.command)));
    };
    const box = make("details", { id: `layout-${section.name}`, open: section.name === "versus", ontoggle: () => box.open && fill() },
      make("summary", {}, make("h3", {}, section.title), make("span", { class: "hint" }, section.about)), body);
    if (box.open) fill();
    return box;
  };
  $("sections").replaceChildren(...page.sections.map(drawer));
  $("sections").parentNode.hidden = !page.sections.length;
}

/** Where to look for what: links to every part, at the top. */
function drawContents() {
  const parts = [["board-title", "Leaderboard"], ["charts-title", "Accuracy and honesty"], ["models-title", "Models"],
    ...page.sections.map(section => [`layout-${section.name}`, section.title]), ["cells-title", "Every cell"], ["about-title", "How it was made"]];
  const go = id => event => {
    const target = $(id);
    event.preventDefault();
    if (target.tagName === "DETAILS") target.open = true;
    target.scrollIntoView();
  };
  $("contents").replaceChildren(...parts.map(([id, text]) => make("a", { href: `#${id}`, onclick: go(id) }, text)));
}

function openAll(open) {
  for (const box of document.querySelectorAll("#sections details")) box.open = open;
}
window.addEventListener("beforeprint", () => openAll(true));
