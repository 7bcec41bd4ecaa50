// Small charts as SVG, and how elements are made.

const SVG = "http://www.w3.org/2000/svg";

export const percent = (v) => (v === null || v === undefined ? "-" : `${(100 * v).toFixed(2)} %`);

/** An element; of SVG if its name begins with "svg:". */
export function tag(name, attributes = {}, ...children) {
  const element = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const [W, H, PAD] = [320, 130, 14];

function chart(words, below, ...children) {
  const labels = below.map(([x, anchor, text]) => tag("svg:text", { x, y: H + 14, "text-anchor": anchor }, text));
  const axis = tag("svg:line", { x1: 0, x2: W, y1: H, y2: H, class: "axis" });
  return tag("svg:svg", { viewBox: `0 0 ${W} ${H + 20}`, role: "img", "aria-label": words }, ...children, axis, ...labels);
}

/** Bars of counts over values from the first edge to the last, and the cut if there is one. */
export function histogram({ counts, edges, calibrated }, cut) {
  const most = Math.max(...counts, 1);
  const bar = W / counts.length;
  const high = (n) => (H - PAD) * n / most;
  const bars = counts.map((n, i) => tag("svg:rect", { x: i * bar + 1, width: bar - 2, y: H - high(n), height: high(n), class: "bar" }, tag("svg:title", {}, `${n} faces from ${percent(edges[i])} to ${percent(edges[i + 1])}`)));
  const what = calibrated ? "expected error" : "disagreement of views";
  const x = cut && Math.min(W, W * cut.doubt / edges.at(-1));
  const line = cut ? [tag("svg:line", { x1: x, x2: x, y1: 0, y2: H, class: "cut" }), tag("svg:text", { x: x > W / 2 ? x - 4 : x + 4, y: 10, "text-anchor": x > W / 2 ? "end" : "start" }, percent(cut.doubt))] : [];
  return chart(`Faces by ${what}`, [[0, "start", "0"], [W / 2, "middle", `${what}, of the face's size`], [W, "end", percent(edges.at(-1))]], ...bars, ...line);
}

/** NMEs by the number of labels, the fewest first, and the band of the curve through them if there is one. */
export function curve(known, band) {
  if (known.length < 2) return tag("p", { class: "quiet" }, known.length ? `NME ${percent(known[0].nme)} on held-out faces from ${known[0].n_labelled} labels.` : "From 100 labels on, faces are held out to measure the model; before, run fewmark curve on this folder.");
  const ns = [...known.map((r) => r.n_labelled), ...(band ? band.n_labels : [])];
  const values = [...known.map((r) => r.nme), ...(band ? band.band.flat() : [])];
  const [x0, x1, y1] = [Math.min(...ns), Math.max(...ns), 1.15 * Math.min(Math.max(...values), 2 * Math.max(...known.map((r) => r.nme)))];
  const at = (n, nme) => [PAD + (W - 2 * PAD) * (n - x0) / (x1 - x0 || 1), H - (H - PAD) * Math.min(1, nme / y1)];
  const points = (pairs) => pairs.map(([n, nme]) => at(n, nme).map((v) => v.toFixed(1)).join(",")).join(" ");
  const side = (i) => band.n_labels.map((n, k) => [n, band.band[k][i]]);
  const fitted = band ? [tag("svg:polygon", { points: points([...side(0), ...side(2).reverse()]), class: "band" }), tag("svg:polyline", { points: points(side(1)), class: "curve" })] : [tag("svg:polyline", { points: points(known.map((r) => [r.n_labelled, r.nme])), class: "curve" })];
  const dots = known.map((r) => tag("svg:circle", { cx: at(r.n_labelled, 0)[0], cy: at(0, r.nme)[1], r: 4, class: "knot" }, tag("svg:title", {}, `${r.n_labelled} labels: ${percent(r.nme)}`)));
  const word = (r, anchor) => tag("svg:text", { x: at(r.n_labelled, 0)[0], y: at(0, r.nme)[1] - 9, "text-anchor": anchor }, percent(r.nme));
  return chart("NME of each training by its labels", [[PAD, "start", String(Math.round(x0))], [W / 2, "middle", "labels"], [W - PAD, "end", String(Math.round(x1))]], ...fitted, ...dots, word(known[0], "start"), word(known.at(-1), "middle"));
}
