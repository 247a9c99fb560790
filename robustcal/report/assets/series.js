// How series differ: by colour, by shape and by dashes. The counts of shapes and dashes have no divisor in common, so that 80
// series differ in grey; after a turn of shapes the colours go on by one.
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a7a7a", "#8c6d1f"];
const DASHES = ["", "6 3", "2 3", "9 3 2 3", "12 5"];

/** Corners of a regular polygon; every other one at `inner` of the radius for a star. */
const regular = (corners, turn = 0, inner = 1, radius = 1.25) => Array.from({ length: inner < 1 ? 2 * corners : corners }, (_, i, all = inner < 1 ? 2 * corners : corners) => {
  const angle = (2 * Math.PI * i) / all + turn - Math.PI / 2, far = i % 2 && inner < 1 ? inner * radius : radius;
  return [far * Math.cos(angle), far * Math.sin(angle)];
});
const PLUS = [[-0.4, -1.2], [0.4, -1.2], [0.4, -0.4], [1.2, -0.4], [1.2, 0.4], [0.4, 0.4], [0.4, 1.2], [-0.4, 1.2], [-0.4, 0.4], [-1.2, 0.4], [-1.2, -0.4], [-0.4, -0.4]];
const turned = points => points.map(([x, y]) => [(x - y) * Math.SQRT1_2, (x + y) * Math.SQRT1_2]);
/** A circle comes first. */
const SHAPES = [
  null, [[-1, -1], [1, -1], [1, 1], [-1, 1]], [[0, -1.25], [1.2, 0.95], [-1.2, 0.95]], [[0, -1.4], [1.2, 0], [0, 1.4], [-1.2, 0]],
  [[0, 1.25], [1.2, -0.95], [-1.2, -0.95]], PLUS, turned(PLUS), regular(5, 0, 0.42, 1.5), [[-1.25, 0], [0.95, -1.2], [0.95, 1.2]],
  [[1.25, 0], [-0.95, 1.2], [-0.95, -1.2]], [[-1.1, -1.2], [1.1, -1.2], [-1.1, 1.2], [1.1, 1.2]], [[-1.2, -1.1], [-1.2, 1.1], [1.2, -1.1], [1.2, 1.1]],
  [[-1.5, -0.5], [1.5, -0.5], [1.5, 0.5], [-1.5, 0.5]], [[-0.5, -1.5], [0.5, -1.5], [0.5, 1.5], [-0.5, 1.5]], regular(4, 0, 0.35, 1.6),
  [[-1.2, -1.2], [0, -0.5], [1.2, -1.2], [1.2, 0.3], [0, 1.3], [-1.2, 0.3]],
];

function look(at) {
  const turn = Math.floor(at / SHAPES.length);
  return { color: COLORS[(at + turn) % COLORS.length], shape: at % SHAPES.length, dash: DASHES[at % DASHES.length] };
}

const stroke = at => ({ stroke: look(at).color, "stroke-width": 1.6, "stroke-dasharray": look(at).dash || null });

/** The marker of a series. */
function marker(at, x, y, size, filled = true) {
  const { color, shape } = look(at), points = SHAPES[shape];
  const paint = { class: "marker", "data-series": at, fill: filled ? color : "var(--paper)", stroke: color, "stroke-width": 1.4 };
  if (!points) return make("circle", { cx: x, cy: y, r: size, ...paint });
  return make("polygon", { points: points.map(([a, b]) => `${(x + a * size * 0.92).toFixed(2)},${(y + b * size * 0.92).toFixed(2)}`).join(" "), ...paint });
}
