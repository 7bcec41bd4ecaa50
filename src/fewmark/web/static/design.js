// The scheme designer: points on one example face, their names, components, mirror pairs, and the normaliser.

import { ask } from "./api.js";

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const make = (name, attributes, parent) => {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return parent.appendChild(element);
};
const COLOURS = ["#40e0d0", "#ffc43d", "#5eb6ff", "#c494ff", "#ff6f7d", "#96de62"];

const design = await ask("GET", "api/design");
let points = []; // {x, y, name, component, mirror}
let selected = null;
let drag = null;
const closed = new Set();
const svg = $("canvas");
const pad = 0.05 * Math.max(design.width, design.height);
svg.setAttribute("viewBox", `${-pad} ${-pad} ${design.width + 2 * pad} ${design.height + 2 * pad}`);
make("image", { href: "api/design/image", x: -0.5, y: -0.5, width: design.width, height: design.height }, svg);
const drawing = make("g", {}, svg);
for (const name of design.schemes) $("start").append(new Option(name, name));

function place(event) {
  const p = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  return [p.x, p.y];
}

function components() {
  const found = {};
  points.forEach((p, k) => (found[p.component] ||= []).push(k));
  return found;
}

/** Add a point, named after its component and its number there. */
function add([x, y]) {
  const component = $("component").value.trim() || "points";
  const n = points.filter((p) => p.component === component).length;
  points.push({ x, y, component, name: `${component.replaceAll(" ", "_")}_${n}`, mirror: points.length });
  selected = points.length - 1;
}

function draw() {
  drawing.replaceChildren();
  const px = (design.width + 2 * pad) / Math.max(1, svg.clientWidth);
  const names = Object.keys(components());
  const colour = (p) => COLOURS[names.indexOf(p.component) % COLOURS.length];
  for (const [name, indices] of Object.entries(components())) {
    const chain = closed.has(name) && indices.length > 2 ? [...indices, indices[0]] : indices;
    for (let i = 1; i < chain.length; i++) {
      const [a, b] = [points[chain[i - 1]], points[chain[i]]];
      make("line", { x1: a.x, y1: a.y, x2: b.x, y2: b.y, class: "edge", stroke: colour(a) }, drawing);
    }
  }
  if ($("mirrored").checked) {
    points.forEach((p, k) => {
      if (p.mirror > k) make("line", { x1: p.x, y1: p.y, x2: points[p.mirror].x, y2: points[p.mirror].y, class: "pair" }, drawing);
    });
  }
  points.forEach((p, k) => {
    const dot = make("circle", { cx: p.x, cy: p.y, r: 5 * px * (k === selected ? 1.5 : 1), fill: colour(p), class: k === selected ? "dot selected" : "dot" }, drawing);
    make("title", {}, dot).textContent = p.name;
  });
}

function input(value, label, onChange) {
  const box = Object.assign(document.createElement("input"), { value, spellcheck: false });
  box.setAttribute("aria-label", label);
  box.addEventListener("change", () => { onChange(box.value.trim()); show(); });
  return box;
}

function show() {
  $("points").replaceChildren(
    ...points.map((p, k) => {
      const row = document.createElement("li");
      row.className = k === selected ? "current" : "";
      const pair = document.createElement("select");
      pair.setAttribute("aria-label", `Mirror image of ${p.name}`);
      points.forEach((q, j) => pair.append(new Option(j === k ? "itself" : q.name, j, false, j === p.mirror)));
      pair.addEventListener("change", () => { join(k, +pair.value); show(); });
      row.append(input(p.name, `Name of point ${k}`, (v) => { p.name = v; }), input(p.component, `Component of ${p.name}`, (v) => { p.component = v; }), pair);
      row.addEventListener("focusin", () => { selected = k; draw(); });
      return row;
    }),
  );
  $("components").replaceChildren(...Object.keys(components()).map((name) => new Option(name)));
  $("closed").checked = closed.has($("component").value.trim());
  for (const id of ["first", "second"]) {
    const before = $(id).value;
    $(id).replaceChildren(new Option("all points (diagonal)", ""), ...points.map((p, k) => new Option(p.name, k)));
    $(id).value = before && +before < points.length ? before : "";
  }
  $("save").disabled = points.length < 2;
  $("counts").textContent = points.length ? `${points.length} points in ${Object.keys(components()).length} components` : $("counts").textContent;
  draw();
}

/** Make two points mirror images of each other; those that were theirs before become their own. */
function join(k, other) {
  for (const i of [k, other]) {
    const old = points[i].mirror;
    points[old].mirror = old;
    points[i].mirror = i;
  }
  points[k].mirror = other;
  points[other].mirror = k;
}

function drawn() {
  const of = components();
  const [a, b] = [$("first").value, $("second").value];
  return {
    name: $("name").value.trim(),
    landmarks: points.map((p) => p.name),
    points: points.map((p) => [p.x, p.y]),
    components: of,
    closed: Object.keys(of).filter((name) => closed.has(name)),
    mirror: $("mirrored").checked ? points.map((p) => p.mirror) : null,
    normalizer: a !== "" && b !== "" && a !== b ? [+a, +b] : null,
  };
}

const tell = (error) => { $("message").textContent = error.message; };

svg.addEventListener("pointerdown", (event) => {
  $("message").textContent = "";
  const [x, y] = place(event);
  const reach = 12 * (design.width + 2 * pad) / Math.max(1, svg.clientWidth);
  const near = points.findIndex((p) => Math.hypot(p.x - x, p.y - y) < reach);
  if (near >= 0) selected = near;
  else add([x, y]);
  drag = selected;
  svg.setPointerCapture(event.pointerId);
  show();
});
svg.addEventListener("pointermove", (event) => {
  if (drag === null) return;
  [points[drag].x, points[drag].y] = place(event);
  draw();
});
svg.addEventListener("pointerup", () => { drag = null; });
svg.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: [-0.5, 0], ArrowRight: [0.5, 0], ArrowUp: [0, -0.5], ArrowDown: [0, 0.5] }[event.key];
  if (step && selected !== null) {
    event.preventDefault();
    points[selected].x += step[0] * (event.ctrlKey ? 10 : 1);
    points[selected].y += step[1] * (event.ctrlKey ? 10 : 1);
    draw();
  } else if (event.key === "Delete" || event.key === "Backspace") $("remove").click();
});
$("remove").addEventListener("click", () => {
  if (selected === null || !points.length) return;
  const gone = selected;
  join(gone, gone);
  points.splice(gone, 1);
  for (const p of points) if (p.mirror > gone) p.mirror -= 1;
  selected = points.length ? Math.min(gone, points.length - 1) : null;
  show();
});
$("closed").addEventListener("change", () => {
  const name = $("component").value.trim();
  $("closed").checked ? closed.add(name) : closed.delete(name);
  draw();
});
$("component").addEventListener("change", show);
$("mirrored").addEventListener("change", draw);
$("propose").addEventListener("click", async () => {
  try {
    const found = await ask("POST", "api/design/proposal", drawn());
    if (!found.mirror) throw new Error("These points show no mirror image; choose the pairs in the list.");
    points.forEach((p, k) => { p.mirror = found.mirror[k]; });
    const doubtful = Object.keys(found.doubtful).map((k) => points[k].name);
    $("message").textContent = doubtful.length ? `Look at the pairs of ${doubtful.join(", ")}.` : "";
    show();
  } catch (error) {
    tell(error);
  }
});
$("start").addEventListener("change", async () => {
  if (!$("start").value) return;
  const scheme = await ask("GET", `api/design/schemes/${$("start").value}`).catch(tell);
  if (!scheme) return;
  const [x0, y0, x1, y1] = design.place;
  const of = (k) => Object.entries(scheme.components).find(([, v]) => v.includes(k))?.[0] || "points";
  points = scheme.mean_face.map(([x, y], k) => ({
    x: x0 + x * (x1 - x0), y: y0 + y * (y1 - y0),
    name: scheme.landmarks[k], component: of(k), mirror: scheme.mirror ? scheme.mirror[k] : k,
  }));
  selected = null;
  show();
});
$("save").addEventListener("click", async () => {
  try {
    const made = await ask("POST", "api/design", drawn());
    $("state").textContent = `Made ${made.project}. ${made.warnings.join(" ")} Close this page, and add images: fewmark add ${made.project} IMAGES`;
    $("save").disabled = true;
  } catch (error) {
    tell(error);
  }
});
show();
