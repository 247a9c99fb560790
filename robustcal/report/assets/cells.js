// The flat table: every cell a row, sortable by every number, filtered by words.
const list = { query: "", flagged: "", sort: { key: "", direction: 1 }, limit: 200 };
const listed = page.metrics.filter(m => m.listed);
const NAMES = [["model", "Model"], ["dataset", "Data set"], ["attack", "Attack"], ["eps", "Radius"], ["n", "n"]];

function cellValue(cell, key) {
  if (key === "model") return page.models[cell.model].label;
  if (key === "dataset") return page.datasets[cell.dataset].label;
  if (key === "attack") return page.attacks[cell.attack].label;
  if (key === "eps") return cell.radius;
  if (key === "n") return cell.n;
  if (key === "flags") return Object.keys(cell.flags).length ? Object.keys(cell.flags).join(" ") : null;
  return (cell.v[key] || [null])[0];
}

function cellText(cell) {
  return [cell.id, page.models[cell.model].spec, page.datasets[cell.dataset].spec, page.attacks[cell.attack].spec, cell.eps,
    ...["model", "dataset", "attack"].map(key => cellValue(cell, key)), ...Object.keys(cell.flags)].join(" ");
}

function drawCells(focus) {
  const chosen = page.cells.map((cell, at) => at).filter(at => matches(list.query, cellText(page.cells[at]))
    && (!list.flagged || (Object.keys(page.cells[at].flags).length > 0) === (list.flagged === "yes")));
  const { key, direction } = list.sort;
  if (key) chosen.sort((a, b) => compare(cellValue(page.cells[a], key), cellValue(page.cells[b], key), direction));
  const redraw = name => drawCells(name);
  const heads = [...NAMES.map(([name, text]) => sorter(name, text, 1, list.sort, redraw, { class: name === "n" ? null : "text" })),
    ...listed.map(m => sorter(m.key, m.short || m.title, order[m.better], list.sort, redraw)),
    sorter("flags", "Flags", 1, list.sort, redraw, { class: "text" })];
  const body = chosen.slice(0, list.limit).map(at => {
    const cell = page.cells[at];
    const open = make("button", { type: "button", class: "open", "data-cell": cell.id, onclick: () => openDialog(at) }, cellValue(cell, "model"));
    return make("tr", { class: "row" }, make("th", { scope: "row" }, open),
      ["dataset", "attack"].map(name => make("td", { class: "text names" }, cellValue(cell, name))),
      make("td", { class: "text" }, cell.eps), make("td", { class: "plain" }, String(cell.n)),
      listed.map(m => make("td", { class: "plain", title: cell.v[m.key] ? bounds(cell.v[m.key], m.unit) : null },
        show(cellValue(cell, m.key), m.unit))),
      make("td", { class: "text raised" }, Object.keys(cell.flags).join(", ")));
  });
  if (chosen.length > list.limit) {
    const more = () => { list.limit += 500; drawCells(); };
    body.push(make("tr", {}, make("td", { class: "text", colspan: 99 },
      make("button", { type: "button", onclick: more }, `Show ${Math.min(500, chosen.length - list.limit)} more`))));
  }
  $("cells").replaceChildren(make("thead", {}, make("tr", {}, heads)), make("tbody", {}, body));
  $("cells-note").textContent = chosen.length === page.cells.length ? `${chosen.length} cells; percent for accuracy and calibration, nats for entropy.`
    : `${chosen.length} of ${page.cells.length} cells.`;
  if (typeof focus === "string") document.querySelector(`#cells [data-key="${CSS.escape(focus)}"]`).focus();
}

function drawCellControls() {
  $("cell-controls").replaceChildren(
    search("cells", "Words", "model, data set, attack, flag or id", value => { list.query = value; list.limit = 200; drawCells(); }),
    select("flagged", "Flags", [["", "any"], ["yes", "flagged"], ["no", "not flagged"]], "", value => { list.flagged = value; drawCells(); }));
}
