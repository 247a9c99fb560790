// Diagrams as inline SVG, drawn from the same bins as the numbers.
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a7a7a", "#8c6d1f"];
const DASHES = ["", "6 3", "2 3", "8 3 2 3", "", "6 3", "2 3", "8 3 2 3"];
let patterns = 0;

/** A marker that differs by shape as well as colour. */
function marker(kind, x, y, size, filled = true) {
  const color = COLORS[kind % COLORS.length];
  const paint = { fill: filled ? color : "var(--paper)", stroke: color, "stroke-width": 1.6 };
  const points = [
    null,
    [[-1, -1], [1, -1], [1, 1], [-1, 1]],
    [[0, -1.25], [1.2, 0.95], [-1.2, 0.95]],
    [[0, -1.4], [1.2, 0], [0, 1.4], [-1.2, 0]],
    [[0, 1.25], [1.2, -0.95], [-1.2, -0.95]],
    [[-0.4, -1.2], [0.4, -1.2], [0.4, -0.4], [1.2, -0.4], [1.2, 0.4], [0.4, 0.4], [0.4, 1.2], [-0.4, 1.2], [-0.4, 0.4],
      [-1.2, 0.4], [-1.2, -0.4], [-0.4, -0.4]],
  ][kind % 6];
  if (!points) return make("circle", { cx: x, cy: y, r: size, ...paint });
  return make("polygon", { points: points.map(([a, b]) => `${x + a * size * 0.92},${y + b * size * 0.92}`).join(" "), ...paint });
}

/** Axes of a plot on [x0, x1] x [y0, y1]; returns {svg, x, y} with scales in pixels. */
function plot({ width = 340, height = 260, left = 46, bottom = 38, top = 10, right = 12, xs, ys, xLabel, yLabel, label, xTicks, yTicks, xText, yText }) {
  const x = value => left + ((value - xs[0]) / (xs[1] - xs[0])) * (width - left - right);
  const y = value => height - bottom - ((value - ys[0]) / (ys[1] - ys[0])) * (height - bottom - top);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const tick of yTicks) {
    svg.append(make("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      make("text", { class: "soft", x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, yText(tick)));
  }
  for (const tick of xTicks) {
    svg.append(make("line", { class: "axis", x1: x(tick), x2: x(tick), y1: height - bottom, y2: height - bottom + 4 }),
      make("text", { class: "soft", x: x(tick), y: height - bottom + 16, "text-anchor": "middle" }, xText(tick)));
  }
  svg.append(make("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
    make("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, xLabel),
    make("text", { x: 0, y: 0, "text-anchor": "middle", transform: `translate(11 ${(top + height - bottom) / 2}) rotate(-90)` }, yLabel));
  return { svg, x, y };
}

const percent = value => String(Math.round(100 * value));
const FIFTHS = [0, 0.2, 0.4, 0.6, 0.8, 1];

/** Reliability diagram: accuracy of each confidence bin, its exact interval, the gap to the diagonal, and the counts. */
function reliability(bins, title, ece) {
  const total = bins.reduce((sum, bin) => sum + bin[0], 0), count = bins.length;
  const { svg, x, y } = plot({ width: 300, height: 342, bottom: 96, xs: [0, 1], ys: [0, 1], xTicks: [], yTicks: FIFTHS,
    xText: percent, yText: percent, xLabel: "", yLabel: "accuracy %", label: `${title}: ${ece}` });
  const id = `hatch-${(patterns += 1)}`;
  svg.append(make("defs", {}, make("pattern", { id, width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    make("rect", { width: 5, height: 5, fill: "var(--gap-soft)" }), make("line", { x1: 0, x2: 0, y1: 0, y2: 5, stroke: "var(--gap)", "stroke-width": 2 }))));
  bins.forEach(([n, confidence, accuracy, low, high], i) => {
    if (!n) return;
    const at = x(i / count) + 0.8, wide = x((i + 1) / count) - x(i / count) - 1.6, middle = at + wide / 2;
    const tip = make("title", {}, `${n} samples, confidence ${show(confidence, "fraction")} %, accuracy ${show(accuracy, "fraction")} % (${show(low, "fraction")} to ${show(high, "fraction")})`);
    const top = Math.max(accuracy, confidence), base = Math.min(accuracy, confidence);
    svg.append(make("g", {}, tip,
      make("rect", { x: at, width: wide, y: y(accuracy), height: y(0) - y(accuracy), fill: "var(--bar)" }),
      make("rect", { x: at, width: wide, y: y(top), height: y(base) - y(top), fill: `url(#${id})`, stroke: "var(--gap)", "stroke-width": 0.8 }),
      make("path", { d: `M${middle} ${y(low)}V${y(high)}M${middle - 3} ${y(low)}h6M${middle - 3} ${y(high)}h6`, stroke: "var(--ink)", "stroke-width": 1.1, fill: "none" })));
  });
  svg.append(make("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), stroke: "var(--soft)", "stroke-dasharray": "4 3" }),
    make("text", { x: x(0) + 8, y: y(1) + 12, class: "halo" }, ece));
  shares(svg, bins.map(bin => (total ? bin[0] / total : 0)), x, 268, 314, "var(--bar)");
  for (const tick of FIFTHS) svg.append(make("text", { class: "soft", x: x(tick), y: 327, "text-anchor": "middle" }, percent(tick)));
  svg.append(make("text", { x: (x(0) + x(1)) / 2, y: 341, "text-anchor": "middle" }, "confidence %"),
    make("text", { x: 0, y: 0, "text-anchor": "middle", transform: "translate(11 291) rotate(-90)" }, "share"));
  return make("figure", {}, make("h3", {}, title), svg);
}

/** Bars of shares between two heights. */
function shares(svg, values, x, top, bottom, fill) {
  const highest = Math.max(...values, 1e-9);
  values.forEach((value, i) => {
    const at = x(i / values.length) + 0.8, wide = x((i + 1) / values.length) - x(i / values.length) - 1.6;
    const tall = (value / highest) * (bottom - top);
    svg.append(make("rect", { x: at, width: wide, y: bottom - tall, height: tall, fill }, make("title", {}, `${show(value, "fraction")} % of the samples`)));
  });
  svg.append(make("line", { class: "axis", x1: x(0), x2: x(1), y1: bottom, y2: bottom }),
    make("text", { class: "soft", x: x(0) - 6, y: top + 6, "text-anchor": "end" }, `${percent(highest)}`));
}

/** Two histograms on one axis: clean as an outline, attacked filled. */
function histogram(clean, now, range, xLabel, label) {
  const share = values => { const total = values.reduce((a, b) => a + b, 0) || 1; return values.map(v => v / total); };
  const a = clean ? share(clean) : null, b = share(now), highest = Math.max(...b, ...(a || []));
  const ticks = [0, 0.25, 0.5, 0.75, 1].map(t => t * highest);
  const { svg, x, y } = plot({ width: 300, height: 190, xs: [0, 1], ys: [0, highest], xTicks: FIFTHS, yTicks: ticks, xLabel, yLabel: "share %",
    xText: t => (range === 1 ? percent(t) : (t * range).toFixed(1)), yText: percent, label });
  b.forEach((value, i) => svg.append(make("rect", { x: x(i / b.length) + 0.5, width: x(1 / b.length) - x(0) - 1, y: y(value), height: y(0) - y(value), fill: "var(--bar)" })));
  if (a) {
    const steps = a.map((value, i) => `${i ? "L" : "M"}${x(i / a.length)} ${y(value)}H${x((i + 1) / a.length)}`).join("");
    svg.append(make("path", { d: steps, fill: "none", stroke: "var(--gap)", "stroke-width": 2 }));
  }
  return make("figure", {}, svg, make("figcaption", {}, a ? "Filled: these images. Line: the same images clean." : ""));
}

/** Overview charts under the leaderboard: accuracy against ECE, and both against the radius. */
function drawCharts() {
  const attack = page.attacks[board.attack].kind === "clean" ? attacked[attacked.length - 1] : board.attack;
  const radii = attack === undefined ? [] : radiiOf(attack);
  const eps = radii.includes(board.eps) ? board.eps : radii[radii.length - 1];
  const models = page.models.map((model, at) => at).filter(at => averageOf(at, attack, eps));
  $("charts").parentNode.hidden = !models.length;
  if (!models.length) return;
  const cleanAt = page.attacks.findIndex(one => one.kind === "clean");
  const clean = model => averageOf(model, cleanAt, "0");
  const figures = [scatter(models, attack, eps, clean)];
  if (radii.length > 1 || models.some(clean)) {
    figures.push(curves(models, attack, radii, clean, "accuracy", "accuracy %"), curves(models, attack, radii, clean, "ece", "calibration error (ECE) %"));
  }
  const legend = make("ul", { class: "legend" }, models.map(at => make("li", {},
    make("svg", { viewBox: "-7 -7 14 14", "aria-hidden": "true" }, marker(at, 0, 0, 5)), page.models[at].label)));
  $("charts").replaceChildren(...figures);
  const old = $("charts").parentNode.querySelector(".legend");
  if (old) old.remove();
  $("charts").after(legend);
  $("charts-note").textContent = `Averages over ${averageOf(models[0], attack, eps).datasets} data sets, ${page.attacks[attack].label}`;
}

const ceiling = value => Math.max(0.2, Math.min(1, Math.ceil(value * 5) / 5));
const ticksTo = top => FIFTHS.filter(t => t <= top + 1e-9);

function scatter(models, attack, eps, clean) {
  const points = models.map(at => [at, clean(at), averageOf(at, attack, eps)]);
  const top = ceiling(Math.max(...points.flatMap(([, a, b]) => [a ? a.v.ece[0] : 0, missing(b.v.ece[2]) ? b.v.ece[0] : b.v.ece[2]])));
  const { svg, x, y } = plot({ xs: [0, 1], ys: [0, top], xTicks: FIFTHS, yTicks: ticksTo(top), xText: percent, yText: percent,
    xLabel: "accuracy %", yLabel: "calibration error (ECE) %", label: "Accuracy against calibration error" });
  for (const [at, from, to] of points) {
    const color = COLORS[at % COLORS.length], [ax, ay] = [x(to.v.accuracy[0]), y(to.v.ece[0])];
    const group = make("g", {}, make("title", {}, `${page.models[at].label}: accuracy ${show(to.v.accuracy[0], "fraction")} %, ECE ${show(to.v.ece[0], "fraction")} %`));
    if (from) {
      const [cx, cy] = [x(from.v.accuracy[0]), y(from.v.ece[0])];
      group.append(make("line", { x1: cx, y1: cy, x2: ax, y2: ay, stroke: color, "stroke-width": 1.2, opacity: 0.6 }), marker(at, cx, cy, 4.5, false));
    }
    if (!missing(to.v.ece[1])) group.append(make("path", { d: `M${ax} ${y(to.v.ece[1])}V${y(to.v.ece[2])}M${x(to.v.accuracy[1])} ${ay}H${x(to.v.accuracy[2])}`, stroke: color, "stroke-width": 1, opacity: 0.7 }));
    group.append(marker(at, ax, ay, 5));
    svg.append(group);
  }
  return make("figure", {}, svg, make("figcaption", {}, `Hollow: clean. Filled: radius ${eps}, with 95 % intervals. Best: bottom right.`));
}

function curves(models, attack, radii, clean, key, yLabel) {
  const size = eps => page.sizes[eps], all = radii.filter(eps => eps !== "0");
  const high = Math.max(...models.flatMap(at => all.map(eps => averageOf(at, attack, eps)).filter(Boolean).map(one => one.v[key][2] || one.v[key][0])),
    ...models.map(at => (clean(at) ? clean(at).v[key][0] : 0)));
  const top = ceiling(high), ticks = [...(models.some(clean) ? ["0"] : []), ...all];
  const { svg, x, y } = plot({ xs: [0, Math.max(...all.map(size))], ys: [0, top], xTicks: ticks.map(size), yTicks: ticksTo(top), xLabel: "radius", yLabel,
    xText: value => ticks.find(eps => size(eps) === value), yText: percent, label: `${yLabel} against radius` });
  for (const at of models) {
    const points = ticks.map(eps => [size(eps), eps === "0" ? clean(at) : averageOf(at, attack, eps)]).filter(([, one]) => one);
    const color = COLORS[at % COLORS.length];
    svg.append(make("polyline", { points: points.map(([r, one]) => `${x(r)},${y(one.v[key][0])}`).join(" "), fill: "none", stroke: color, "stroke-width": 1.6, "stroke-dasharray": DASHES[at % DASHES.length] }));
    for (const [r, one] of points) {
      const [value, low, top95] = one.v[key];
      if (!missing(low)) svg.append(make("line", { x1: x(r), x2: x(r), y1: y(low), y2: y(top95), stroke: color, opacity: 0.5 }));
      svg.append(marker(at, x(r), y(value), 4));
    }
  }
  return make("figure", {}, svg, make("figcaption", {}, `${key === "ece" ? "Calibration error" : "Accuracy"} against the radius; bars are 95 % intervals.`));
}
