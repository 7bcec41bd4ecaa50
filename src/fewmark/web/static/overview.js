// The overview: where the project stands, a training from here, how the doubts are spread, and the faces in doubt.

import { ask } from "./api.js";

const $ = (id) => document.getElementById(id);
const percent = (v) => (v === null || v === undefined ? "-" : `${(100 * v).toFixed(2)} %`);
const SVG = "http://www.w3.org/2000/svg";

function tag(name, attributes = {}, ...children) {
  const element = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Bars of counts over values from the first edge to the last. */
function histogram({ counts, edges, calibrated }) {
  const [w, h, most] = [320, 110, Math.max(...counts, 1)];
  const bar = w / counts.length;
  const bars = counts.map((n, i) => tag("svg:rect", { x: i * bar + 1, width: bar - 2, y: h - (h - 14) * n / most, height: (h - 14) * n / most, class: "bar" }, tag("svg:title", {}, `${n} faces from ${percent(edges[i])} to ${percent(edges[i + 1])}`)));
  const label = (x, anchor, text) => tag("svg:text", { x, y: h + 14, "text-anchor": anchor }, text);
  const what = calibrated ? "expected error" : "disagreement of views";
  return tag("svg:svg", { viewBox: `0 0 ${w} ${h + 20}`, role: "img", "aria-label": `Faces by ${what}` }, ...bars, tag("svg:line", { x1: 0, x2: w, y1: h, y2: h, class: "axis" }), label(0, "start", "0"), label(w / 2, "middle", `${what}, of the face's size`), label(w, "end", percent(edges.at(-1))));
}

/** The NME of each training by its number of labels. */
function curve(runs) {
  const known = runs.filter((r) => r.nme !== null);
  if (known.length < 2) return tag("p", { class: "quiet" }, known.length ? `NME ${percent(known[0].nme)} on held-out faces from ${known[0].n_labelled} labels.` : "From 100 labels on, faces are held out to measure the model.");
  const [w, h, pad] = [320, 110, 14];
  const xs = known.map((r) => r.n_labelled);
  const ys = known.map((r) => r.nme);
  const [x0, x1, y1] = [Math.min(...xs), Math.max(...xs), Math.max(...ys) * 1.1];
  const at = (r) => [pad + (w - 2 * pad) * (r.n_labelled - x0) / (x1 - x0 || 1), h - (h - pad) * r.nme / y1];
  const line = tag("svg:polyline", { points: known.map((r) => at(r).join(",")).join(" "), class: "curve" });
  const dots = known.map((r) => tag("svg:circle", { cx: at(r)[0], cy: at(r)[1], r: 4, class: "knot" }, tag("svg:title", {}, `${r.n_labelled} labels: ${percent(r.nme)}`)));
  const words = known.map((r, i) => tag("svg:text", { x: at(r)[0], y: at(r)[1] - 8, "text-anchor": i ? "end" : "start" }, percent(r.nme)));
  const label = tag("svg:text", { x: w / 2, y: h + 14, "text-anchor": "middle" }, `NME by labels, ${x0} to ${x1}`);
  return tag("svg:svg", { viewBox: `0 0 ${w} ${h + 20}`, role: "img", "aria-label": "NME of each training" }, tag("svg:line", { x1: 0, x2: w, y1: h, y2: h, class: "axis" }), line, ...dots, words[0], words.at(-1), label);
}

export class Overview {
  /** @param onOpen called with the number of a face that is to be shown
   *  @param onTrained called when a training has ended */
  constructor({ onOpen, onTrained }) {
    Object.assign(this, { onOpen, onTrained });
    $("train").addEventListener("click", () => this.train());
    $("stop").addEventListener("click", () => ask("POST", "api/training/stop", {}).catch((e) => this.say(e.message)));
  }

  say(text) {
    $("training").textContent = text;
  }

  async show() {
    const data = await ask("GET", "api/overview");
    const s = data.status;
    $("standing").replaceChildren(
      ...[["images", s.n_images], ["labelled", s.n_labelled], ["unlabelled", s.n_unlabelled], ["not a face", s.n_rejected], ["trainings", s.runs.length]].map(([name, n]) => tag("div", {}, tag("dt", {}, name), tag("dd", {}, String(n)))),
    );
    $("advice").textContent = `Next: ${s.next_command}, because ${s.why}.`;
    $("curve").replaceChildren(curve(s.runs));
    $("doubts").replaceChildren(data.doubts ? histogram(data.doubts) : tag("p", { class: "quiet" }, "There is no model yet."));
    $("worst").replaceChildren(
      ...data.worst.map(({ face, doubt }) => {
        const button = tag("button", { "aria-label": `Face ${face}` }, tag("img", { src: `api/faces/${face}/tile`, alt: "", width: 100, height: 100, loading: "lazy" }), tag("small", {}, percent(doubt)));
        button.addEventListener("click", () => this.onOpen(face));
        return button;
      }),
    );
    if (this.source || this.starting) return; // it knows better than an answer that was under way
    this.running(data.training);
    if (data.training) this.follow();
  }

  running(is) {
    $("train").disabled = is;
    $("stop").disabled = !is;
  }

  async train() {
    this.running(true);
    this.starting = true;
    try {
      await ask("POST", "api/training", {});
      this.follow();
    } catch (error) {
      this.running(false);
      this.say(error.message);
    } finally {
      this.starting = false;
    }
  }

  follow() {
    this.running(true);
    this.say("starting");
    this.source = new EventSource("api/training/events");
    this.source.onmessage = ({ data }) => this.hear(JSON.parse(data));
  }

  hear(event) {
    const nme = event.val_nme ? `, NME ${percent(event.val_nme)}` : "";
    const words = {
      started: "starting",
      reading: `reading ${event.n_faces} faces`,
      note: event.text,
      training: `training ${event.student || event.name}`,
      epoch: `${(event.name || "").replaceAll("_", " ")}: epoch ${event.epoch} of ${event.n_epochs}${nme}`,
      ended: `trained${nme}`,
      stopped: "stopped; what it has done is kept",
      failed: event.text,
    };
    if (event.kind === "epoch") $("progress").value = event.epoch / event.n_epochs;
    if (words[event.kind]) this.say(words[event.kind]);
    if (["ended", "stopped", "failed"].includes(event.kind)) {
      this.source.close();
      this.source = null;
      this.running(false);
      $("progress").value = event.kind === "ended" ? 1 : 0;
      if (event.kind === "ended") this.onTrained();
    }
  }
}
