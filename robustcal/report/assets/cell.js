// One cell opened: its numbers, diagrams, flags, protocol and samples. Addressed by #cell=ID, so it can be linked to.
const dialog = $("cell");
const indexOf = new Map(page.cells.map((cell, at) => [cell.id, at]));

function openDialog(at) {
  const hash = `#cell=${page.cells[at].id}`;
  if (location.hash === hash) drawDialog(at);
  else location.hash = hash;
}

function followHash() {
  const at = indexOf.get(decodeURIComponent(location.hash.replace(/^#cell=/, "")));
  if (at !== undefined) drawDialog(at);
  else if (dialog.open) dialog.close();
}

function neighbour(at, step) {
  const shown = [...document.querySelectorAll("#cells [data-cell]")].map(one => indexOf.get(one.dataset.cell));
  const among = shown.includes(at) ? shown : page.cells.map((_, i) => i);
  return among[(among.indexOf(at) + step + among.length) % among.length];
}

function drawDialog(at) {
  const cell = page.cells[at], clean = missing(cell.clean) ? null : page.cells[cell.clean];
  const attack = page.attacks[cell.attack], isClean = attack.kind === "clean";
  const name = `${page.models[cell.model].label} · ${page.datasets[cell.dataset].label} · ${attack.label}${isClean ? "" : ` ${cell.eps}`}`;
  const go = step => () => openDialog(neighbour(at, step));
  const bar = make("div", { class: "bar" }, make("h2", { id: "cell-title", tabindex: -1, autofocus: true }, name),
    make("button", { type: "button", "aria-label": "Previous cell", onclick: go(-1) }, "‹"),
    make("button", { type: "button", "aria-label": "Next cell", onclick: go(1) }, "›"),
    make("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => dialog.close() }, "✕"));
  const inside = make("div", { class: "inside" }, cellNumbers(cell, clean), cellDiagrams(cell, clean, isClean),
    cellFlags(cell), cellProtocol(cell), cellSamples(cell, isClean));
  dialog.replaceChildren(bar, inside);
  document.body.classList.add("opened");
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function cellNumbers(cell, clean) {
  const facts = page.metrics.filter(m => cell.v[m.key]).map(m => {
    const v = cell.v[m.key], before = clean && clean !== cell && clean.v[m.key];
    return make("div", { title: m.about }, make("dt", {}, m.title), make("dd", {}, `${show(v[0], m.unit)}${m.unit === "fraction" ? " %" : ""}`,
      marks("", concerning(m.key, Object.keys(cell.flags))),
      make("small", {}, missing(v[1]) ? "" : `[${show(v[1], m.unit)}, ${show(v[2], m.unit)}]`),
      before ? make("small", {}, `clean ${show(before[0], m.unit)}`) : null));
  });
  return make("section", { "aria-label": "Numbers" }, make("dl", { class: "facts" }, facts), make("p", { class: "hint" },
    "[95 % interval]. That of the calibration error is for the true error: noise in the bins makes the number itself too large, so it can lie above its interval."));
}

function cellDiagrams(cell, clean, isClean) {
  const words = one => {
    const v = one.v.ece || [];
    return `ECE ${show(v[0], "fraction")} %${missing(v[1]) ? "" : ` [${show(v[1], "fraction")}, ${show(v[2], "fraction")}]`}`
      + (concerning("ece", Object.keys(one.flags)).length ? " ⚑" : "");
  };
  const figures = [];
  if (clean && !isClean) figures.push(reliability(clean.bins, "Clean", words(clean)));
  figures.push(reliability(cell.bins, isClean ? "Clean" : "Attacked", words(cell)));
  const before = clean && !isClean ? clean : null;
  const more = [histogram(before && before.confidences, cell.confidences, 1, "confidence %", "Confidence of the samples")];
  if (cell.entropies) more.push(histogram(before && before.entropies, cell.entropies, cell.most, "entropy, nats", "Entropy of the predictions"));
  return make("section", { "aria-label": "Diagrams" }, make("div", { class: "pair" }, figures), make("div", { class: "pair" }, more),
    make("p", { class: "hint" }, "Blue: accuracy of the samples in a confidence bin, with its exact binomial interval. Hatched: the gap to their mean confidence, which the ECE adds up."));
}

const attackKind = cell => page.attacks[cell.attack].kind;

function cellFlags(cell) {
  const flags = Object.entries(cell.flags);
  if (!flags.length) return make("section", {}, make("h3", {}, "Validity"), make("p", {}, "No check raised a flag."));
  return make("section", {}, make("h3", {}, "Validity flags"), make("ul", { class: "flags" }, flags.map(([flag, count]) =>
    make("li", {}, make("strong", {}, flag), missing(count) ? "" : ` (${count} of ${cell.n} samples)`, page.flags[flag] ? `: ${page.flags[flag]}` : ""))));
}

function cellProtocol(cell) {
  const rows = Object.entries({ ...page.protocols[cell.protocol], ...cell.own });
  return make("section", {}, make("h3", {}, "Protocol"),
    make("dl", { class: "protocol" }, rows.flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, value)])),
    make("p", { class: "hint" }, "Everything that made this number: ", make("code", {}, `robustcal report RUN --explain ${cell.id}`)));
}

function cellSamples(cell, isClean) {
  if (!cell.samples || !cell.samples.length) return null;
  const columns = ["sample", "label", "prediction", "confidence %", ...(isClean ? [] : ["clean prediction", "clean confidence %"]), "flags"];
  const pictured = cell.samples.some(one => one.image);
  const body = cell.samples.map(one => make("tr", {},
    pictured ? make("td", {}, one.image ? make("img", { src: one.image, alt: `${one.id}: clean, attacked, and the change stretched to the whole range`, loading: "lazy" }) : "") : null,
    make("td", { class: "id" }, one.id), make("td", {}, one.label), make("td", { class: one.correct ? null : "wrong" }, `${one.prediction} ${one.correct ? "✓" : "✗"}`),
    make("td", {}, show(one.confidence, "fraction")), isClean ? [] : [make("td", {}, one.before || "–"), make("td", {}, show(one.trust, "fraction"))],
    make("td", {}, one.flags)));
  return make("section", {}, make("h3", {}, "Samples: the most confident mistakes first"), make("div", { class: "scroll" },
    make("table", { class: "samples" }, make("thead", {}, make("tr", {}, pictured ? make("th", { class: "text" }, "clean, attacked, change") : null,
      columns.map(name => make("th", { class: "text", scope: "col" }, name)))), make("tbody", {}, body))),
    pictured || isClean || attackKind(cell) === "worst" ? null : make("p", { class: "hint" }, "Records keep no images. To see these attacked again: ",
      make("code", {}, `robustcal report RUN --images ${cell.id} --format html`)));
}

dialog.addEventListener("close", () => {
  document.body.classList.remove("opened");
  const last = location.hash.replace(/^#cell=/, "");
  history.replaceState(null, "", location.pathname + location.search);
  const opener = last && document.querySelector(`[data-cell="${CSS.escape(last)}"]`);
  if (opener) opener.focus({ preventScroll: true });
});
dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("keydown", event => {
  const at = indexOf.get(location.hash.replace(/^#cell=/, ""));
  if (event.key === "ArrowLeft") openDialog(neighbour(at, -1));
  if (event.key === "ArrowRight") openDialog(neighbour(at, 1));
});
window.addEventListener("hashchange", followHash);
