// The leaderboard: models down, data sets across, for one metric, attack and radius.
const board = { metric: "accuracy", attack: null, eps: null, query: "", sort: { key: "average", direction: 0 } };

const byKey = new Map(page.cells.map((cell, at) => [[cell.model, cell.dataset, cell.attack, cell.eps].join("|"), at]));
const cellAt = (model, dataset) => {
  const at = byKey.get([model, dataset, board.attack, board.eps].join("|"));
  return at === undefined ? null : at;
};
const averageOf = (model, attack, eps) =>
  page.averages.find(one => one.model === model && one.attack === attack && one.eps === eps);
const radiiOf = attack => page.radii.filter(eps => page.cells.some(c => c.attack === attack && c.eps === eps));
const attacked = page.attacks.map((attack, at) => at).filter(at => page.attacks[at].kind !== "clean");

function drawControls() {
  const attacks = page.attacks.map((attack, at) => [String(at), attack.label]);
  const radii = radiiOf(board.attack), has = key => page.cells.some(cell => cell.attack === board.attack && cell.v[key]);
  if (!has(board.metric)) board.metric = (page.metrics.find(m => has(m.key)) || page.metrics[0]).key;
  if (!radii.includes(board.eps)) board.eps = radii[Math.min(1, radii.length - 1)];
  const parts = [
    select("metric", "Number", page.metrics.map(m => [m.key, m.title]), board.metric, value => {
      board.metric = value;
      board.sort = { key: "average", direction: 0 };
      drawBoard();
    }),
    select("attack", "Attack", attacks, board.attack, value => { board.attack = Number(value); drawControls(); refresh(); }),
    select("eps", "Radius", radii.map(eps => [eps, eps === "0" ? "none" : eps]), board.eps, value => { board.eps = value; refresh(); }),
  ];
  const field = $("c-model") ? $("c-model").parentNode : search("model", "Models", "filter by name", value => { board.query = value; drawBoard(); });
  $("controls").replaceChildren(...parts, field);
}

function refresh() {
  drawBoard();
  drawCharts();
}

/** The numbers of one model's row: average, H and one per data set. */
function boardRow(model) {
  const mean = averageOf(model, board.attack, board.eps);
  const row = { model, label: page.models[model].label, average: mean ? mean.v[board.metric] || null : null, mean };
  row.h = mean && mean.v.h ? mean.v.h : null;
  row.cells = page.datasets.map((dataset, at) => cellAt(model, at));
  return row;
}

function valueOf(row, key) {
  if (key === "model") return row.label;
  if (key === "average" || key === "h") return row[key] && row[key][0];
  const at = row.cells[Number(key)];
  return at === null ? null : (page.cells[at].v[board.metric] || [null])[0];
}

function drawBoard(focus) {
  const m = metric(board.metric);
  if (!board.sort.direction) board.sort.direction = order[m.better];
  const rows = page.models.map((_, at) => boardRow(at)).filter(row => row.mean || row.cells.some(at => at !== null));
  const shown = rows.filter(row => matches(board.query, `${row.label} ${page.models[row.model].spec}`));
  shown.sort((a, b) => compare(valueOf(a, board.sort.key), valueOf(b, board.sort.key), board.sort.direction));
  const sets = page.datasets.map((_, at) => at).filter(at => page.cells.some(cell => cell.dataset === at && cell.v[m.key]));
  const withH = board.metric === "accuracy" && rows.some(row => row.h);
  const head = (key, text, attributes) => sorter(key, text, key === "model" ? 1 : order[m.better], board.sort, drawBoard, attributes);
  const heads = [head("model", "Model"), head("average", "Average"), withH ? head("h", "H") : null,
    sets.map((at, i) => head(String(at), page.datasets[at].label, { class: i ? null : "group" }))];
  const range = trackRange(rows, m);
  const body = shown.map(row => make("tr", {}, make("th", { scope: "row", title: page.models[row.model].spec }, row.label),
    averageCell(row.mean, m.key, m, range), withH ? averageCell(row.mean, "h", m, range) : null,
    sets.map((at, i) => openCell(row.cells[at], m, range, i ? "" : "group"))));
  if (!body.length) body.push(make("tr", {}, make("td", { class: "empty text", colspan: 99 }, board.query ? "No model matches." : "Nothing was measured here.")));
  $("board").replaceChildren(make("thead", {}, make("tr", {}, heads)), make("tbody", {}, body));
  if (typeof focus === "string") document.querySelector(`#board [data-key="${CSS.escape(focus)}"]`).focus();
  const attack = page.attacks[board.attack];
  const where = attack.kind === "clean" ? "on clean images" : `under ${attack.label} at radius ${board.eps}`;
  $("board-note").textContent = `${m.title}${m.unit === "fraction" ? ", percent," : m.unit ? `, ${m.unit},` : ""} ${where}. ${m.about} ${attack.about}`;
  $("board-hint").textContent = `${withH ? "H: harmonic mean of the clean and the robust average. " : ""}The line under a number is its 95 % `
    + "interval. Bold: best; †: better than every other model at the 5 % level (paired test, Holm-corrected); underlined: second. "
    + "⚑: a validity flag, explained below. Click a number for its diagram, protocol and samples; click a heading to sort.";
}

/** The scale of the interval lines: 0 to 100 % for fractions, else what the table spans. */
function trackRange(rows, m) {
  if (m.unit === "fraction") return [0, 1];
  const all = rows.flatMap(row => row.cells.filter(at => at !== null).map(at => page.cells[at].v[board.metric] || []))
    .concat(rows.map(row => row.average || [])).flat().filter(v => !missing(v));
  return [Math.min(...all, 0), Math.max(...all)];
}

function track(v, [low, high]) {
  if (missing(v[1]) || high <= low) return null;
  const left = (100 * (v[1] - low)) / (high - low), width = (100 * (v[2] - v[1])) / (high - low);
  const mark = make("i");
  mark.style.left = `${Math.max(0, Math.min(100, left))}%`;
  mark.style.width = `${Math.max(0.5, Math.min(100 - left, width))}%`;
  return make("span", { class: "track", "aria-hidden": "true" }, mark);
}

function averageCell(mean, key, m, range) {
  const v = mean && mean.v[key];
  if (!v) return make("td", { class: "empty" }, "–");
  const rank = mean.rank[key] || "", flags = concerning(key, mean.flags);
  return make("td", { class: rank || null },
    make("span", { class: "value", title: [bounds(v, m.unit), flags.join(", ")].filter(Boolean).join("; ") },
      make("span", { class: "number" }, show(v[0], m.unit)), marks(rank, flags), track(v, range)));
}

function openCell(at, m, range, extra) {
  const cell = at === null ? null : page.cells[at];
  const v = cell && cell.v[m.key];
  if (!v) return make("td", { class: `empty ${extra}` }, "–");
  const flags = concerning(m.key, Object.keys(cell.flags)), rank = (cell.rank || {})[m.key] || "";
  const name = [page.models[cell.model].label, page.datasets[cell.dataset].label, page.attacks[cell.attack].label, cell.eps].join(", ");
  return make("td", { class: `${rank} ${extra}` },
    make("button", { type: "button", class: "open", "data-cell": cell.id, "aria-label": `${name}: ${show(v[0], m.unit)}${flags.length ? ", flagged" : ""}`,
      title: [bounds(v, m.unit), flags.join(", ")].filter(Boolean).join("; "), onclick: () => openDialog(at) },
    make("span", { class: "number" }, show(v[0], m.unit)), marks(rank, flags), track(v, range)));
}
