// Reading the embedded data, making elements, printing numbers. Text from outside only ever becomes a text node.
const page = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);

/** An element: make("td", {class: "best"}, child, "text", ...). Attributes starting with "on" are listeners. */
function make(tag, attributes = {}, ...children) {
  const svg = make.svg.has(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined));
  return element;
}
make.svg = new Set(["svg", "g", "rect", "line", "path", "circle", "polyline", "polygon", "text", "defs", "pattern", "clipPath", "title"]);

const metric = key => page.metrics.find(one => one.key === key);
const missing = value => value === null || value === undefined;

/** A number in the unit of its metric; percent for fractions. */
function show(value, unit, digits = 1) {
  if (missing(value)) return "–";
  if (unit === "fraction") return (100 * value).toFixed(digits);
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
  return value.toFixed(3);
}
const unitText = unit => (unit === "fraction" ? "%" : unit);
const bounds = (v, unit) => (missing(v[1]) ? "" : `95 % interval ${show(v[1], unit)} to ${show(v[2], unit)}`);

/** Those of the flags that concern a number. */
const concerning = (key, flags) => flags.filter(flag => !page.concerns.predictions.includes(key) || !page.concerns.probabilities.includes(flag));

/** What stands behind a number: a dagger if it is best beyond chance, a flag if one concerns it. */
const marks = (rank, flags) => [/significant/.test(rank) ? make("sup", { class: "dagger" }, "†") : null,
  flags.length ? make("sup", { class: "flag" }, "⚑") : null];

/** Where `better` values come first. */
const order = { higher: -1, lower: 1, zero: 1, none: -1 };

function select(name, label, options, chosen, change) {
  const list = make("select", { name, id: `c-${name}`, onchange: event => change(event.target.value) },
    options.map(([value, text]) => make("option", { value, selected: value === String(chosen) }, text)));
  return make("label", { for: `c-${name}` }, label, list);
}

function search(name, label, placeholder, change) {
  const field = make("input", { type: "search", id: `c-${name}`, name, placeholder, size: placeholder.length + 4, oninput: e => change(e.target.value) });
  return make("label", { for: `c-${name}`, class: "wide" }, label, field);
}

/** Whether every word of the query occurs in the text. */
function matches(query, text) {
  const low = text.toLowerCase();
  return query.toLowerCase().split(/\s+/).every(word => low.includes(word));
}

/** A header cell that sorts: `state` is {key, direction}, `redraw` draws the table again. */
function sorter(key, text, first, state, redraw, attributes = {}) {
  const sorted = state.key === key ? (state.direction > 0 ? "ascending" : "descending") : "none";
  const click = () => {
    state.direction = state.key === key ? -state.direction : first;
    state.key = key;
    redraw(key);
  };
  return make("th", { scope: "col", "aria-sort": sorted, ...attributes },
    make("button", { type: "button", class: "sort", "data-key": key, onclick: click }, text));
}

/** Compare numbers or texts; missing ones always come last. */
function compare(a, b, direction) {
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  return direction * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
}
