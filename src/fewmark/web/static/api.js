// Talks to the server. Edits wait in the browser's storage until the server has them, so that a lost connection loses none.

const WAITING = "fewmark-edits:" + location.host;
const headers = { "Content-Type": "application/json" };

export class Refused extends Error {
  constructor(status, body) {
    super(body.detail || `the server answers ${status}`);
    this.status = status;
    this.face = body.face;
  }
}

export async function ask(method, path, body) {
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  const data = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, data);
  return data;
}

export const readProject = () => ask("GET", "api/project");
export const readFace = (number) => ask("GET", `api/faces/${number}`);
export const readNeighbour = (number) => ask("GET", `api/faces/${number}/neighbour`);
export const readHeatmap = (number) => ask("GET", `api/faces/${number}/heatmap`);
export const imageOf = (face) => `api/images/${face.image}`;
export const lists = {
  queue: (kind) => ask("GET", `api/queue?n=40&kind=${kind}`),
  doubtful: () => ask("GET", "api/doubtful?n=100"),
  all: (after = 0) => ask("GET", `api/faces?after=${after}&n=200`),
};

/** Edits that the server does not have yet, the oldest first; one a face. */
export class Outbox {
  constructor({ onState, onSaved, onConflict }) {
    Object.assign(this, { onState, onSaved, onConflict });
    this.edits = JSON.parse(localStorage.getItem(WAITING) || "[]");
    this.sending = false;
    addEventListener("online", () => this.send());
    this.send();
  }

  has(face) {
    return this.edits.find((e) => e.face === face);
  }

  /** Keep an edit, and send it. A later edit of the same face takes the place of one that waits. */
  put(edit) {
    const waiting = this.edits.findIndex((e) => e.face === edit.face && e !== this.current);
    if (waiting >= 0) this.edits[waiting] = edit;
    else this.edits.push(edit);
    this.keep();
    this.send();
  }

  keep() {
    localStorage.setItem(WAITING, JSON.stringify(this.edits));
    this.onState(this.edits.length, this.failed);
  }

  async send() {
    if (this.sending) return;
    this.sending = true;
    while (this.edits.length) {
      const edit = (this.current = this.edits[0]);
      try {
        const { face, reject, restore, ...body } = edit;
        const saved = reject
          ? await ask("POST", `api/faces/${face}/reject`, body)
          : restore !== undefined
            ? await ask("POST", `api/faces/${face}/restore`, { version: restore })
            : await ask("PUT", `api/faces/${face}`, body);
        this.failed = false;
        this.edits.shift();
        for (const later of this.edits) if (later.face === face) later.version = saved.version;
        this.onSaved(saved);
      } catch (error) {
        if (error instanceof Refused && error.status < 500 && error.status !== 401) {
          this.edits.shift(); // the server has said why; it will not want it later either
          this.onConflict(edit, error);
        } else {
          this.failed = true;
          this.keep();
          setTimeout(() => { this.sending = false; this.send(); }, 2000);
          return;
        }
      }
      this.current = null;
      this.keep();
    }
    this.sending = false;
    this.keep();
  }
}
