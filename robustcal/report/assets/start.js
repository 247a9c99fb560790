// Put the page together.
function drawAbout() {
  const flags = Object.entries(page.flags);
  const block = (title, ...children) => make("div", {}, make("h3", {}, title), ...children);
  const items = (values, one) => make("ul", {}, values.map(value => make("li", {}, one(value))));
  const parts = [block("Protocol", page.captions.map(text => make("p", {}, text)))];
  if (page.notes.length) parts.push(block("Notes", items(page.notes, text => text)));
  if (flags.length) parts.push(block("Validity flags", make("dl", { class: "protocol" }, flags.flatMap(([flag, text]) => [make("dt", {}, flag), make("dd", {}, text)]))));
  parts.push(block("Numbers", make("dl", { class: "protocol" }, page.metrics.flatMap(m => [make("dt", {}, m.title), make("dd", {}, m.about)]))));
  for (const run of page.runs) parts.push(block(`Run ${run.name}`, make("pre", { class: "code" }, run.commands.join("\n")), make("p", { class: "hint" }, run.versions)));
  if (page.files.length) parts.push(block("Files", make("div", { class: "files" }, items(page.files, file => make("a", { href: file.href }, file.text)))));
  $("about").replaceChildren(...parts);
}

$("lead").textContent = page.lead;
$("made").textContent = page.made;
drawContents();
drawModels();
drawSections();
// Begin with an attack whose numbers are valid, where the run has one.
board.attack = page.first.attack ?? attacked[0] ?? 0;
board.eps = page.first.eps;
drawControls();
refresh();
drawCellControls();
drawCells();
drawAbout();
followHash();
