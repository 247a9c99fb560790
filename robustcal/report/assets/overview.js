// Overview charts: every model at once, in looks that no two share.
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
  const legend = make("ul", { class: "legend" }, models.map(at => make("li", {}, make("svg", { viewBox: "-20 -7 40 14", "aria-hidden": "true" },
    make("line", { x1: -19, x2: 19, y1: 0, y2: 0, ...stroke(at) }), marker(at, 0, 0, 5)), make("span", {}, page.models[at].label))));
  $("charts").replaceChildren(...figures);
  const old = $("charts").parentNode.querySelector(".legend");
  if (old) old.remove();
  $("charts").after(legend);
  $("charts-note").textContent = `Averages over ${averageOf(models[0], attack, eps).datasets} data sets, ${page.attacks[attack].label}`;
}

/** Flags that concern one of the numbers drawn. */
const raised = (key, one) => concerning(key, one.flags);
const ring = (flags, x, y) => (flags.length ? make("circle", { class: "ring", cx: x, cy: y, r: 8.5 }) : make("g", {}));
const ringed = raisedBy => {
  const flags = [...new Set(raisedBy.flat())];
  return flags.length ? ` Ringed ⚑: ${flags.join(", ")}; what that means stands below.` : "";
};

const ceiling = value => Math.max(0.2, Math.min(1, Math.ceil(value * 5) / 5));
const ticksTo = top => FIFTHS.filter(t => t <= top + 1e-9);

function scatter(models, attack, eps, clean) {
  const points = models.map(at => [at, clean(at), averageOf(at, attack, eps)]);
  const top = ceiling(Math.max(...points.flatMap(([, a, b]) => [a ? a.v.ece[0] : 0, missing(b.v.ece[2]) ? b.v.ece[0] : b.v.ece[2]])));
  const { svg, x, y } = plot({ xs: [0, 1], ys: [0, top], xTicks: FIFTHS, yTicks: ticksTo(top), xText: percent, yText: percent,
    xLabel: "accuracy %", yLabel: "calibration error (ECE) %", label: "Accuracy against calibration error" });
  for (const [at, from, to] of points) {
    const { color } = look(at), [ax, ay] = [x(to.v.accuracy[0]), y(to.v.ece[0])];
    const group = make("g", {}, make("title", {}, `${page.models[at].label}: accuracy ${show(to.v.accuracy[0], "fraction")} %, ECE ${show(to.v.ece[0], "fraction")} %`));
    if (from) {
      const [cx, cy] = [x(from.v.accuracy[0]), y(from.v.ece[0])];
      group.append(make("line", { x1: cx, y1: cy, x2: ax, y2: ay, stroke: color, "stroke-width": 1.2, opacity: 0.6 }), marker(at, cx, cy, 4.5, false));
    }
    if (!missing(to.v.ece[1])) group.append(make("path", { d: `M${ax} ${y(to.v.ece[1])}V${y(to.v.ece[2])}M${x(to.v.accuracy[1])} ${ay}H${x(to.v.accuracy[2])}`, stroke: color, "stroke-width": 1, opacity: 0.7 }));
    group.append(marker(at, ax, ay, 5), ring(raised("ece", to), ax, ay));
    svg.append(group);
  }
  return make("figure", {}, svg, make("figcaption", {}, `Hollow: clean. Filled: ${eps === "0" ? "attacked" : `radius ${eps}`}, with 95 % intervals. Best: bottom right.`,
    ringed(points.map(([, , to]) => raised("ece", to)))));
}

function curves(models, attack, radii, clean, key, yLabel) {
  const size = eps => page.sizes[eps], all = radii.filter(eps => eps !== "0");
  const high = Math.max(...models.flatMap(at => all.map(eps => averageOf(at, attack, eps)).filter(Boolean).map(one => one.v[key][2] || one.v[key][0])),
    ...models.map(at => (clean(at) ? clean(at).v[key][2] || clean(at).v[key][0] : 0)));
  const top = ceiling(high), ticks = [...(models.some(clean) ? ["0"] : []), ...all];
  const { svg, x, y } = plot({ right: 24, xs: [0, Math.max(...all.map(size), 1e-9)], ys: [0, top], xTicks: ticks.map(size), yTicks: ticksTo(top), xLabel: "radius", yLabel,
    xText: value => ticks.find(eps => size(eps) === value), yText: percent, label: `${yLabel} against radius` });
  const aside = Math.min(1.6, 10 / models.length); // whiskers beside one another
  models.forEach((at, i) => {
    const shift = (i - (models.length - 1) / 2) * aside, across = r => x(r) + shift;
    const points = ticks.map(eps => [size(eps), eps === "0" ? clean(at) : averageOf(at, attack, eps)]).filter(([, one]) => one);
    const { color } = look(at);
    svg.append(make("polyline", { points: points.map(([r, one]) => `${across(r)},${y(one.v[key][0])}`).join(" "), fill: "none", ...stroke(at) }));
    for (const [r, one] of points) {
      const [value, low, top95] = one.v[key];
      if (!missing(low)) svg.append(make("line", { x1: across(r), x2: across(r), y1: y(low), y2: y(top95), stroke: color, opacity: 0.5 }));
      svg.append(marker(at, across(r), y(value), 4), ring(raised(key, one), across(r), y(value)));
    }
  });
  return make("figure", {}, svg, make("figcaption", {}, `${key === "ece" ? "Calibration error" : "Accuracy"} against the radius; bars are 95 % intervals.`,
    ringed(models.flatMap(at => all.map(eps => averageOf(at, attack, eps)).filter(Boolean).map(one => raised(key, one))))));
}
