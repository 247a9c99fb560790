// Diagrams as inline SVG, drawn from the same bins as the numbers.
let patterns = 0;

/** Axes of a plot on [x0, x1] x [y0, y1]; returns {svg, x, y} with scales in pixels, which end with the axes. */
function plot({ width = 340, height = 260, left = 46, bottom = 42, top = 10, right = 12, xs, ys, xLabel, yLabel, label, xTicks, yTicks, xText, yText }) {
  const part = (value, [low, high]) => Math.max(0, Math.min(1, (value - low) / (high - low || 1)));
  const x = value => left + part(value, xs) * (width - left - right);
  const y = value => height - bottom - part(value, ys) * (height - bottom - top);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const tick of yTicks) {
    svg.append(make("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      make("text", { class: "soft", x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, yText(tick)));
  }
  const named = withRoom(xTicks, x, xText);
  for (const tick of xTicks) {
    svg.append(make("line", { class: "axis", x1: x(tick), x2: x(tick), y1: height - bottom, y2: height - bottom + 4 }));
    if (named.has(tick)) svg.append(make("text", { class: "soft", x: x(tick), y: height - bottom + 18, "text-anchor": "middle" }, xText(tick)));
  }
  svg.append(make("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
    make("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, xLabel),
    make("text", { x: 0, y: 0, "text-anchor": "middle", transform: `translate(11 ${(top + height - bottom) / 2}) rotate(-90)` }, yLabel));
  return { svg, x, y };
}

/** Ticks whose names have room beside one another; the last and the first come before others. */
function withRoom(ticks, x, xText) {
  const shown = [];
  for (const tick of new Set([ticks[ticks.length - 1], ticks[0], ...ticks])) {
    const wide = other => (widthOf(xText(tick)) + widthOf(xText(other))) / 2 + 6;
    if (shown.every(other => Math.abs(x(tick) - x(other)) >= wide(other))) shown.push(tick);
  }
  return new Set(shown);
}

const pen = document.createElement("canvas").getContext("2d");
const widthOf = text => {
  pen.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(text).width;
};

const percent = value => String(Math.round(100 * value));
const FIFTHS = [0, 0.2, 0.4, 0.6, 0.8, 1];

/** Reliability diagram: accuracy of each confidence bin, its exact interval, the gap to the diagonal, and the counts. */
function reliability(bins, title, ece) {
  const total = bins.reduce((sum, bin) => sum + bin[0], 0), count = bins.length;
  const { svg, x, y } = plot({ width: 300, height: 364, bottom: 102, top: 26, xs: [0, 1], ys: [0, 1], xTicks: [], yTicks: FIFTHS,
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
    make("text", { x: x(0), y: 13, class: "strong" }, ece));
  shares(svg, bins.map(bin => (total ? bin[0] / total : 0)), x, 284, 330, "var(--bar)");
  for (const tick of FIFTHS) svg.append(make("text", { class: "soft", x: x(tick), y: 343, "text-anchor": "middle" }, percent(tick)));
  svg.append(make("text", { x: (x(0) + x(1)) / 2, y: 357, "text-anchor": "middle" }, "confidence %"),
    make("text", { x: 0, y: 0, "text-anchor": "middle", transform: "translate(11 307) rotate(-90)" }, "share"));
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
