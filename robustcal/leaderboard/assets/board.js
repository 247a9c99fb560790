// Filters and sorting of tables that are all there already. Text is only ever read from the page, never made into markup.
"use strict";
const boards = [...document.querySelectorAll("section.board")];
const form = document.getElementById("controls");
const state = { set: "", threat: "", words: "", state: "" };

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function choice(key, label, options) {
  const list = make("select", { id: "c-" + key }, ...options.map(([value, text]) => make("option", { value }, text)));
  list.addEventListener("change", () => { state[key] = list.value; show(); });
  form.append(make("label", { for: "c-" + key }, label, list));
}

const distinct = key => [...new Set(boards.map(board => board.dataset[key]))].map(value => [value, value]);

function show() {
  const words = state.words.toLowerCase().split(/\s+/);
  for (const board of boards) {
    const here = (!state.set || board.dataset.set === state.set) && (!state.threat || board.dataset.threat === state.threat);
    let rows = 0;
    for (const row of board.querySelectorAll(".scroll > table > tbody > tr[data-checked]")) {
      const text = row.cells[0].textContent.toLowerCase();
      const kept = words.every(word => text.includes(word)) && (!state.state || state.state.split(" ").includes(row.dataset.checked));
      row.hidden = !kept;
      rows += kept;
    }
    board.hidden = !here || !rows;
  }
  document.getElementById("none").hidden = boards.some(board => !board.hidden);
}

/** Sort the rows of a table by one of its columns of numbers; what has none comes last. */
function sort(button) {
  const head = button.closest("tr"), table = button.closest("table"), heading = button.parentElement;
  const at = 1 + [...head.cells].indexOf(heading);
  const first = button.dataset.better === "higher" ? "descending" : "ascending";
  const other = { ascending: "descending", descending: "ascending" };
  const next = heading.ariaSort && heading.ariaSort !== "none" ? other[heading.ariaSort] : first;
  for (const cell of head.cells) cell.ariaSort = "none";
  heading.ariaSort = next;
  const sign = next === "ascending" ? 1 : -1;
  const value = row => (row.cells[at].dataset.v === undefined ? Infinity : sign * Number(row.cells[at].dataset.v));
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => value(a) - value(b) || 0));
}

choice("set", "Data set", [["", "all"], ...distinct("set")]);
choice("threat", "Threat model", [["", "all"], ...distinct("threat")]);
choice("state", "Rows", [["", "all"], ["yes part", "checked"], ["yes part no refuted", "with records"], ["published", "published"]]);
const field = make("input", { type: "search", id: "c-words", placeholder: "name or author" });
field.addEventListener("input", () => { state.words = field.value.trim(); show(); });
form.append(make("label", { for: "c-words" }, "Models", field));
form.addEventListener("submit", event => event.preventDefault());
form.after(make("p", { id: "none", class: "lead", hidden: "" }, "No row is like that."));
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(one => { one.open = true; }));
for (const button of document.querySelectorAll("th > button")) button.addEventListener("click", () => sort(button));
