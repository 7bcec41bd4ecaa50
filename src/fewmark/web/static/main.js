// The page: lists of faces, the face that is looked at, its keys and buttons.

import { Outbox, imageOf, lists, readFace, readHeatmap, readNeighbour, readProject } from "./api.js";
import { Editor } from "./editor.js";
import { Overview } from "./overview.js";

const $ = (id) => document.getElementById(id);
const STEP = 0.5; // of an arrow key, image px
const FAR = 5;
const AHEAD = 2; // faces that are fetched before they are asked for

const readList = (name) => (name === "queue" ? lists.queue($("kind").value) : lists[name]());
const known = new Map(); // face -> promise of its data
const firstList = readList("queue"); // beside the project, not after it
firstList.then((found) => found.length && fetchFace(found[0].face)).catch(() => {});
const project = await readProject();
let list = [];
let listName = "queue";
let at = -1;
let face = null;
let past = []; // what undo goes back to
let future = [];
let seeing = false; // whether the model's heatmaps are shown

const editor = new Editor($("canvas"), project, changed, showPoint);
const outbox = new Outbox({
  onState: showSaved,
  onSaved: (saved) => {
    known.set(saved.face, Promise.resolve(saved));
    if (face && saved.face === face.face) {
      face.version = saved.version;
      face.state = saved.state;
      face.how = saved.how;
      showState();
    }
    markInList(saved.face, saved.state);
    readProject().then((now) => { project.status = now.status; showCounts(); }).catch(() => {});
  },
  onConflict: (edit, error) => {
    say(error.message);
    if (error.face) known.set(edit.face, Promise.resolve(error.face));
    if (face && edit.face === face.face && error.face) open(error.face);
  },
});

const overview = new Overview({
  onOpen: (number) => {
    showOverview(false);
    list = [{ face: number, reason: "the model is in doubt" }];
    at = -1;
    showList();
    go(0);
  },
  onTrained: async () => {
    known.clear(); // the new model says something else
    project.status = (await readProject()).status;
    showCounts();
    overview.show();
  },
});

// ---- what is shown

function say(text) {
  $("message").textContent = text;
}

function showSaved(n, failed) {
  const word = n ? (failed ? `not saved: ${n} waiting for the server` : "saving") : "saved";
  $("saved").textContent = word;
  $("saved").dataset.state = n ? (failed ? "waiting" : "saving") : "saved";
}

function showCounts() {
  const s = project.status;
  const total = s.n_labelled + s.n_unlabelled + s.n_rejected;
  $("counts").textContent = `${s.n_labelled} of ${total} labelled · ${s.why}`;
}

function showState() {
  const words = { unlabelled: "not labelled", labelled: `labelled: ${face.how}`, rejected: "not a face" };
  $("state").textContent = words[face.state];
  $("state").dataset.state = face.state;
  $("accept-word").textContent = face.state === "labelled" ? "Next" : "Accept";
  $("accept").disabled = !editor.points.some(Boolean);
  $("model").disabled = $("heat").disabled = !face.prediction;
}

function showPoint(k) {
  const wanted = editor.wanted && editor.wanted();
  const box = $("point");
  if (wanted) box.textContent = `Click on: ${wanted.replaceAll("_", " ")}`;
  else if (k === null) box.textContent = "No point is selected.";
  else {
    const words = ["missing", "occluded", "visible"];
    const error = face.prediction ? `, expected error ${face.prediction.errors[k].toFixed(1)} px` : "";
    box.textContent = `${k}: ${project.scheme.landmarks[k].replaceAll("_", " ")}, ${words[editor.visibility[k]]}${error}`;
  }
  for (const button of $("visibility").children) {
    button.disabled = k === null;
    button.setAttribute("aria-pressed", k !== null && +button.dataset.visibility === editor.visibility[k]);
  }
}

function showList() {
  $("faces").replaceChildren(
    ...list.map((item, i) => {
      const row = document.createElement("li");
      const button = document.createElement("button");
      button.textContent = `Face ${item.face}`;
      button.dataset.face = item.face;
      button.setAttribute("aria-current", i === at);
      const reason = document.createElement("small");
      reason.textContent = item.reason;
      button.append(reason);
      button.addEventListener("click", () => go(i).then(toCanvas));
      row.append(button);
      return row;
    }),
  );
}

function markInList(number, state) {
  const button = $("faces").querySelector(`[data-face="${number}"]`);
  if (button) button.dataset.state = state;
}

// ---- going from face to face

function fetchFace(number) {
  if (!known.has(number)) {
    const data = readFace(number);
    known.set(number, data);
    data.then((f) => { new Image().src = imageOf(f); }).catch(() => known.delete(number));
  }
  return known.get(number);
}

/** The next faces of the list of all, of which the server gives some at a time. */
async function readMore() {
  const found = await lists.all(list.at(-1).face).catch((error) => { say(error.message); return []; });
  list = [...list, ...found];
  if (found.length) showList();
}

async function go(i) {
  if (listName === "all" && list.length && i >= list.length) await readMore();
  if (i < 0 || i >= list.length) return say(list.length ? "This is the end of the list." : "");
  say("");
  at = i;
  const data = await fetchFace(list[i].face).catch((error) => say(error.message));
  if (!data || at !== i) return;
  open(data);
  for (const [row, button] of [...$("faces").querySelectorAll("button")].entries()) {
    button.setAttribute("aria-current", row === i);
    if (row === i) scrollTo(button);
  }
  for (let ahead = 1; ahead <= AHEAD; ahead++) if (list[i + ahead]) fetchFace(list[i + ahead].face);
}

/** Scroll the list, and nothing else, to one of its rows. */
function scrollTo(row) {
  const box = $("list");
  const [top, bottom] = [row.offsetTop - box.offsetTop, row.offsetTop - box.offsetTop + row.offsetHeight];
  if (top < box.scrollTop) box.scrollTop = top;
  else if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
}

function open(data) {
  face = { ...data };
  const none = project.scheme.landmarks.map(() => null);
  const waiting = outbox.has(face.face);
  const source = (waiting && waiting.landmarks && waiting) || (face.landmarks && face) || face.prediction;
  past = [];
  future = [];
  base = { state: face.state, version: face.version };
  origin = face.landmarks ? "fixed" : face.prediction ? "fixed" : "placed";
  editor.show(face, imageOf(face), source ? source.landmarks : none, (source && source.visibility) || none.map(() => 2));
  past.push(now());
  $("name").textContent = `Face ${face.face} · ${face.name}`;
  $("reason").textContent = list[at] ? list[at].reason : "";
  showState();
  if (seeing) showHeat();
  document.title = `${face.face} · ${project.name}`;
}

let base = null; // the face as it was opened
let origin = "placed"; // how an edit of it is called

async function show(name, found = readList(name)) {
  showOverview(false);
  listName = name;
  for (const button of document.querySelectorAll("nav [data-list]")) {
    button.setAttribute("aria-pressed", button.dataset.list === name);
  }
  $("kinds").hidden = name !== "queue";
  list = await found.catch((error) => { say(error.message); return []; });
  at = -1;
  showList();
  if (list.length) await go(0);
  else if (!$("message").textContent) say(name === "doubtful" ? "No label stands out." : "There is nothing in this list.");
}

/** Show the overview in place of a face, or the face again. */
function showOverview(is) {
  $("overview").hidden = !is;
  document.querySelector("main").hidden = is;
  $("overview-button").setAttribute("aria-pressed", is);
  if (!is) return;
  for (const button of document.querySelectorAll("nav [data-list]")) button.setAttribute("aria-pressed", false);
  overview.show().catch((error) => overview.say(error.message));
}

/** Let keys go to the face again. */
function toCanvas() {
  $("canvas").focus({ preventScroll: true });
}

async function nextUnlabelled() {
  for (let i = at + 1; i < list.length; i++) {
    const data = await fetchFace(list[i].face);
    if (data.state === "unlabelled") return go(i);
  }
  if (listName === "queue") return show("queue");
  say("All faces of this list are done.");
}

// ---- edits

function now() {
  return { points: editor.points, visibility: editor.visibility };
}

function changed() {
  past.push(now());
  future = [];
  origin = face.how === "accepted" ? "fixed" : origin;
  save(origin);
}

function save(how) {
  const { points, visibility } = now();
  if (!points.some(Boolean)) return;
  const landmarks = points.map((p) => p && p.map((v) => Math.round(v * 1000) / 1000));
  face.state = "labelled";
  face.how = how;
  face.landmarks = landmarks;
  face.visibility = visibility;
  known.set(face.face, Promise.resolve({ ...face }));
  outbox.put({ face: face.face, landmarks, visibility: visibility.map((v) => v || 2), how, version: face.version });
  showState();
  showPoint(editor.selected);
}

function step(from, to) {
  if (from === past ? past.length < 2 : !future.length) return;
  if (from === past) to.push(past.pop());
  else past.push(future.pop());
  const then = past[past.length - 1];
  editor.points = then.points;
  editor.visibility = then.visibility;
  editor.draw();
  if (past.length === 1 && base.state !== "labelled") {
    // back at what was there before the first edit: no label
    Object.assign(face, { state: base.state, landmarks: null, visibility: null });
    known.set(face.face, Promise.resolve({ ...face }));
    outbox.put({ face: face.face, restore: base.version });
    showState();
  } else save(origin);
}

function accept() {
  if (!editor.points.some(Boolean)) return say("There are no points to accept: place the shape (s).");
  if (face.state !== "labelled") save(past.length > 1 ? origin : face.prediction ? "accepted" : origin);
  listName === "queue" ? nextUnlabelled() : go(at + 1);
}

function reject() {
  face.state = "rejected";
  outbox.put({ face: face.face, reject: true, version: face.version });
  known.set(face.face, Promise.resolve({ ...face }));
  showState();
  listName === "queue" ? nextUnlabelled() : go(at + 1);
}

function takeModel() {
  if (!face.prediction) return;
  editor.points = face.prediction.landmarks;
  editor.visibility = editor.points.map(() => 2);
  editor.draw();
  changed();
}

async function takeNeighbour() {
  const number = face.face;
  const found = await readNeighbour(number).catch((error) => say(error.message));
  if (!found || face.face !== number) return;
  editor.points = found.landmarks;
  editor.visibility = found.visibility;
  editor.draw();
  changed();
}

/** Show what the model sees, or hide it; once asked for, on every face. */
async function showHeat() {
  $("heat").setAttribute("aria-pressed", seeing);
  const number = face.face;
  const found = seeing && face.prediction ? await readHeatmap(number).catch((error) => say(error.message)) : null;
  if (face.face === number) editor.showHeatmap(seeing ? found : null);
}

function place() {
  say("");
  editor.place();
  showPoint(editor.selected);
}

function nextPoint(by) {
  const n = editor.points.length;
  editor.select(editor.selected === null ? (by > 0 ? 0 : n - 1) : (editor.selected + by + n) % n);
}

const wide = (e) => (e.altKey ? "shape" : e.shiftKey ? "component" : "point");
const arrow = (x, y) => (e) => editor.nudge(x * (e.ctrlKey ? FAR : STEP), y * (e.ctrlKey ? FAR : STEP), wide(e));
const KEYS = [
  ["Enter", "accept, and go to the next", accept],
  ["x", "not a face", reject],
  ["n", "next", () => go(at + 1)],
  ["p", "previous", () => go(at - 1)],
  ["u", "next unlabelled", nextUnlabelled],
  ["z", "undo", () => step(past, future)],
  ["y", "redo", () => step(future, past)],
  ["s", "place the usual shape by two clicks, or point by point", place],
  ["r", "the model's points", takeModel],
  ["f", "the label of the neighbouring frame", takeNeighbour],
  ["h", "what the model sees: its heatmaps", () => { seeing = !seeing; showHeat(); }],
  ["Tab", "next point; Shift: previous", (e) => nextPoint(e.shiftKey ? -1 : 1)],
  ["ArrowLeft", "move the point; Shift: its component; Alt: the shape; Ctrl: far", arrow(-1, 0)],
  ["ArrowRight", "", arrow(1, 0)],
  ["ArrowUp", "", arrow(0, -1)],
  ["ArrowDown", "", arrow(0, 1)],
  ["[", "turn the shape left", () => editor.turn(-Math.PI / 90, 1)],
  ["]", "turn the shape right", () => editor.turn(Math.PI / 90, 1)],
  ["{", "make the shape smaller", () => editor.turn(0, 1 / 1.03)],
  ["}", "make the shape larger", () => editor.turn(0, 1.03)],
  ["v", "visible", () => editor.mark(2)],
  ["o", "occluded", () => editor.mark(1)],
  ["m", "missing", () => editor.mark(0)],
  ["+", "zoom in", () => editor.zoom(1 / 1.3, focus())],
  ["-", "zoom out", () => editor.zoom(1.3, focus())],
  ["0", "the whole face", () => editor.fit()],
  ["Escape", "select nothing", () => { editor.placing = null; editor.select(null); }],
  ["?", "this list", () => $("help").showModal()],
];
const focus = () => (editor.selected === null ? null : editor.points[editor.selected]);

addEventListener("keydown", (event) => {
  if ($("help").open || !$("overview").hidden || !face || event.metaKey) return;
  const key = event.key === "=" ? "+" : event.key;
  const control = event.ctrlKey && !key.startsWith("Arrow");
  if (control && key !== "z" && key !== "y") return;
  if (key === "Enter" && event.target instanceof HTMLButtonElement && event.target.closest("nav, #list")) return;
  if (key === "Tab" && document.activeElement !== $("canvas") && document.activeElement !== document.body) return;
  const found = KEYS.find(([name]) => name === key);
  if (!found) return;
  event.preventDefault();
  found[2](event);
});

// ---- start

$("keys").append(
  ...KEYS.filter(([, words]) => words).flatMap(([key, words]) => {
    const [name, meaning] = [document.createElement("dt"), document.createElement("dd")];
    name.append(Object.assign(document.createElement("kbd"), { textContent: key.startsWith("Arrow") ? "arrows" : key }));
    meaning.textContent = words;
    return [name, meaning];
  }),
);
const extra = [["drag", "move a point; Shift: its component; Alt: the shape; Alt + Shift: turn and scale it"], ["wheel", "zoom; drag beside the points: pan"]];
for (const [name, words] of extra) {
  const row = [document.createElement("dt"), document.createElement("dd")];
  [row[0].textContent, row[1].textContent] = [name, words];
  $("keys").append(...row);
}
for (const [id, act] of Object.entries({ accept, reject, previous: () => go(at - 1), next: () => go(at + 1), unlabelled: nextUnlabelled, undo: () => step(past, future), redo: () => step(future, past), place, model: takeModel, neighbour: takeNeighbour, heat: () => { seeing = !seeing; showHeat(); }, "help-button": () => $("help").showModal() })) {
  $(id).addEventListener("click", () => { act(); toCanvas(); });
}
for (const button of $("visibility").children) button.addEventListener("click", () => { editor.mark(+button.dataset.visibility); toCanvas(); });
for (const button of document.querySelectorAll("nav [data-list]")) button.addEventListener("click", () => show(button.dataset.list).then(toCanvas));
$("kind").addEventListener("change", () => show("queue").then(toCanvas));
$("overview-button").addEventListener("click", () => showOverview(true));
$("project").textContent = project.name;
showCounts();
showSaved(outbox.edits.length, false);
await show("queue", firstList);
toCanvas();
window.fewmark = { editor, outbox, get face() { return face; } }; // for tests and the curious
