// The picture of a face with its landmarks: zoom, pan, drag a point, a component or the whole shape.

import { boxOf, moved, similarity, turned } from "./geometry.js";

const SVG = "http://www.w3.org/2000/svg";
const make = (name, attributes = {}, parent) => {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return parent ? parent.appendChild(element) : element;
};
const RADIUS = 5; // of a point, screen px; of more than MANY points, less
const MANY = 80;
const REACH = 14; // from which a point is taken hold of, screen px

export class Editor {
  /**
   * @param svg the element
   * @param project what /api/project says
   * @param onEdit called with no argument when a person has changed points, once an action
   * @param onSelect called with the index of the selected point, or null
   */
  constructor(svg, project, onEdit, onSelect) {
    Object.assign(this, { svg, project, onEdit, onSelect });
    this.scheme = project.scheme;
    this.radius = this.scheme.landmarks.length > MANY ? 0.7 * RADIUS : RADIUS;
    this.points = this.scheme.landmarks.map(() => null);
    this.visibility = this.points.map(() => 2);
    this.selected = null;
    this.placing = null;
    this.image = make("image", { x: -0.5, y: -0.5, preserveAspectRatio: "none" }, svg);
    this.heat = make("image", { class: "heat", preserveAspectRatio: "none", hidden: "" }, svg);
    this.rings = make("g", { class: "rings" }, svg);
    this.lines = this.scheme.edges.map(() => make("line", { class: "edge" }, svg));
    this.dots = this.scheme.landmarks.map((name, k) => {
      const dot = make("circle", { class: "dot", fill: this.scheme.colours[k], "data-point": k }, svg);
      make("title", {}, dot).textContent = name;
      return dot;
    });
    this.ringOf = this.scheme.landmarks.map(() => make("circle", { class: "ring" }, this.rings));
    this.marks = make("g", {}, svg);
    svg.addEventListener("pointerdown", (e) => this.down(e));
    svg.addEventListener("pointermove", (e) => this.move(e));
    svg.addEventListener("pointerup", (e) => this.up(e));
    svg.addEventListener("pointercancel", (e) => this.up(e));
    svg.addEventListener("wheel", (e) => this.wheel(e), { passive: false });
    new ResizeObserver(() => this.face && this.draw()).observe(svg);
  }

  /** Show a face; points are its label, else the model's, else none. */
  show(face, url, points, visibility) {
    this.face = face;
    this.points = points;
    this.visibility = visibility;
    this.selected = null;
    this.placing = null;
    this.image.setAttribute("href", url);
    this.image.setAttribute("width", face.width);
    this.image.setAttribute("height", face.height);
    this.showHeatmap(null);
    this.fit();
    this.onSelect(null);
  }

  /** Lay the model's heatmaps over the picture, or take them away. */
  showHeatmap(found) {
    this.heat.toggleAttribute("hidden", !found);
    if (!found) return;
    const [x0, y0, x1, y1] = found.square;
    for (const [key, value] of [["href", found.picture], ["x", x0], ["y", y0], ["width", x1 - x0], ["height", y1 - y0]]) this.heat.setAttribute(key, value);
  }

  /** Zoom to the face, with a margin. */
  fit() {
    const box = boxOf(this.points) || this.face.box || [0, 0, this.face.width, this.face.height];
    const side = Math.max(box[2] - box[0], box[3] - box[1], 8) * 1.5;
    this.view = { x: (box[0] + box[2] - side) / 2, y: (box[1] + box[3] - side) / 2, size: side };
    this.draw();
  }

  /** Image px for one screen px. */
  get pixel() {
    return this.view.size / Math.max(1, Math.min(this.svg.clientWidth, this.svg.clientHeight));
  }

  at(event) {
    const box = this.svg.getBoundingClientRect();
    const px = this.pixel;
    const [w, h] = [box.width * px, box.height * px];
    const [x0, y0] = [this.view.x - (w - this.view.size) / 2, this.view.y - (h - this.view.size) / 2];
    return [x0 + (event.clientX - box.left) * px, y0 + (event.clientY - box.top) * px];
  }

  /** The point that is nearest to a place and within reach, or null. */
  nearest([x, y]) {
    let best = null;
    let least = REACH * this.pixel;
    this.points.forEach((p, k) => {
      const distance = p ? Math.hypot(p[0] - x, p[1] - y) : Infinity;
      if (distance < least) [best, least] = [k, distance];
    });
    return best;
  }

  componentOf(k) {
    return Object.values(this.scheme.components).find((indices) => indices.includes(k)) || [k];
  }

  down(event) {
    if (event.button === 1 || !this.face) return;
    this.svg.setPointerCapture(event.pointerId);
    const place = this.at(event);
    if (this.placing) return this.placeAt(place);
    const k = this.nearest(place);
    const everything = this.points.map((_, i) => i);
    if (k === null && !event.altKey) {
      this.drag = { pan: true, x: event.clientX, y: event.clientY };
    } else {
      const indices = event.altKey ? everything : event.shiftKey ? this.componentOf(k) : [k];
      this.drag = { indices, from: place, before: this.points, turn: event.altKey && event.shiftKey };
    }
    if (k !== null) this.select(k);
  }

  move(event) {
    if (!this.drag) return;
    if (this.drag.pan) {
      this.view.x -= (event.clientX - this.drag.x) * this.pixel;
      this.view.y -= (event.clientY - this.drag.y) * this.pixel;
      [this.drag.x, this.drag.y] = [event.clientX, event.clientY];
    } else {
      const [x, y] = this.at(event);
      const { from, before, indices, turn } = this.drag;
      this.drag.changed = true;
      this.points = turn
        ? turned(before, (y - from[1]) / this.view.size * 3, Math.exp((x - from[0]) / this.view.size))
        : moved(before, indices, x - from[0], y - from[1]);
    }
    this.draw();
  }

  up() {
    const changed = this.drag && this.drag.changed;
    this.drag = null;
    if (changed) this.onEdit();
  }

  wheel(event) {
    event.preventDefault();
    this.zoom(Math.exp(event.deltaY * 0.0015), this.at(event));
  }

  /** Zoom by a factor about a place; the middle of the view if none is given. */
  zoom(factor, place) {
    const [x, y] = place || [this.view.x + this.view.size / 2, this.view.y + this.view.size / 2];
    const size = Math.min(Math.max(this.view.size * factor, 4), 8 * Math.max(this.face.width, this.face.height));
    const scale = size / this.view.size;
    this.view = { x: x + (this.view.x - x) * scale, y: y + (this.view.y - y) * scale, size };
    this.draw();
  }

  select(k) {
    this.selected = k;
    this.onSelect(k);
    this.draw();
  }

  /** Move the selected point, its component or the whole shape. */
  nudge(dx, dy, what = "point") {
    const k = this.selected;
    const everything = this.points.map((_, i) => i);
    if (k === null && what !== "shape") return;
    const indices = what === "shape" ? everything : what === "component" ? this.componentOf(k) : [k];
    this.points = moved(this.points, indices, dx, dy);
    this.draw();
    this.onEdit();
  }

  turn(angle, scale) {
    this.points = turned(this.points, angle, scale);
    this.draw();
    this.onEdit();
  }

  /** Say that the selected point is visible (2), occluded (1) or missing (0). */
  mark(visibility) {
    const k = this.selected;
    if (k === null) return;
    this.visibility = this.visibility.map((v, i) => (i === k ? visibility : v));
    const middle = [this.view.x + this.view.size / 2, this.view.y + this.view.size / 2];
    if (visibility && !this.points[k]) this.points = this.points.map((p, i) => (i === k ? middle : p));
    if (!visibility) this.points = this.points.map((p, i) => (i === k ? null : p));
    this.draw();
    this.onEdit();
  }

  /** Begin to place a shape: by two clicks where there is a usual shape, else point by point. */
  place() {
    const { shape, anchors } = this.project;
    this.placing = { wanted: shape ? anchors : this.points.map((_, k) => k), places: [] };
    this.draw();
    return this.wanted();
  }

  /** The name of the point that the next click places, or null. */
  wanted() {
    const p = this.placing;
    return p && this.scheme.landmarks[p.wanted[p.places.length]];
  }

  placeAt(place) {
    const { shape, anchors } = this.project;
    const p = this.placing;
    p.places.push(place);
    if (!shape) this.points = this.points.map((old, k) => (k === p.wanted[p.places.length - 1] ? place : old));
    if (p.places.length === p.wanted.length) {
      this.placing = null;
      if (shape) this.points = shape.map(similarity(anchors.map((k) => shape[k]), p.places));
      this.visibility = this.points.map(() => 2);
      this.draw();
      this.onEdit();
    }
    this.draw();
    this.onSelect(this.selected);
  }

  draw() {
    const px = this.pixel;
    const v = this.view;
    const [w, h] = [this.svg.clientWidth * px, this.svg.clientHeight * px];
    this.svg.setAttribute("viewBox", `${v.x - (w - v.size) / 2} ${v.y - (h - v.size) / 2} ${w} ${h}`);
    const said = this.face.prediction;
    this.points.forEach((p, k) => {
      const dot = this.dots[k];
      dot.toggleAttribute("hidden", !p);
      dot.classList.toggle("selected", k === this.selected);
      dot.classList.toggle("occluded", this.visibility[k] === 1);
      const ring = this.ringOf[k];
      ring.toggleAttribute("hidden", !said);
      if (said) for (const [key, value] of [["cx", said.landmarks[k][0]], ["cy", said.landmarks[k][1]], ["r", said.errors[k]]]) ring.setAttribute(key, value);
      if (!p) return;
      dot.setAttribute("cx", p[0]);
      dot.setAttribute("cy", p[1]);
      dot.setAttribute("r", this.radius * px * (k === this.selected ? 1.5 : 1));
    });
    this.scheme.edges.forEach(([a, b], i) => {
      const [p, q] = [this.points[a], this.points[b]];
      const line = this.lines[i];
      line.toggleAttribute("hidden", !(p && q));
      if (!(p && q)) return;
      for (const [key, value] of [["x1", p[0]], ["y1", p[1]], ["x2", q[0]], ["y2", q[1]]]) line.setAttribute(key, value);
      line.setAttribute("stroke", this.scheme.colours[a]);
    });
    this.marks.replaceChildren();
    for (const place of this.placing ? this.placing.places : []) {
      make("circle", { class: "mark", cx: place[0], cy: place[1], r: RADIUS * px }, this.marks);
    }
  }
}
