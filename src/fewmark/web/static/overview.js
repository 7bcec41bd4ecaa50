// The overview: where the project stands, a training from here, how the doubts are spread, and the faces in doubt.

import { ask } from "./api.js";
import { curve, histogram, percent, tag } from "./charts.js";

const $ = (id) => document.getElementById(id);

/** What tells the error by the number of labels: runs of the learning curve, or else each training that was measured. */
function points({ curve_points: measured, runs }) {
  const found = measured.length ? measured.map((p) => ({ n_labelled: p.n_labels, nme: p.nme })) : runs.filter((r) => r.nme !== null);
  return found.sort((a, b) => a.n_labelled - b.n_labelled);
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
    const quiet = (text) => tag("p", { class: "quiet" }, text);
    $("curve").replaceChildren(curve(points(s), data.curve));
    if (s.gain) $("curve").append(quiet(`50 more labels: ${s.gain[1] > 0 ? `${percent(s.gain[1])} less error` : "no gain is shown so far"}, ${percent(s.gain[0])} to ${percent(s.gain[2])} with a probability of 80 %.`));
    if (data.reviews) $("curve").append(quiet(`Of ${data.reviews.n} faces looked at since the last training, ${data.reviews.accepted} were accepted as they were; the points moved by ${percent(data.reviews.moved)} of the face's size on average.`));
    $("doubts").replaceChildren(data.doubts ? histogram(data.doubts, data.cut) : quiet("There is no model yet."));
    if (data.cut) $("doubts").append(quiet(`The line parts what was accepted from what was fixed; ${data.cut.n_below} unlabelled faces lie below it.`));
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
    this.say("starting");
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
