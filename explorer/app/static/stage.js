// The stage: draws a run that Python computed, one stop at a time, without asking Python again.
//
// Rule 1: nothing here knows what a memslot is. Figures and document trees arrive finished; these files
//         put them on the page, move the cursor, hear the keys and say when the kernel is gone.
// Rule 2: text is text. Trees are built with createElement and text nodes from a short list of tags.
// Rule 3: the newest wanted stop wins; at most one picture is drawn per animation frame.
//
// The files of this folder are one script: `explorer.app.stage` joins them in the order of reading, this one last. Each
// is a part of the class below.

const FOCUS_AFTER = 150; // the fields of the operation have been exchanged by then
const GOING = new Set(["at", "ping", "room", "size", "tab", "want"]); // messages of stepping, which a lost session needs not
const CONTROLS = [".mx-top", ".mx-compose", ".mx-map-tools"];

class Stage extends Hands(Drawing(Moving(LateTabs(Bars(Logs(Notes(Sheets(Talk(Page(class {})))))))))) {
  constructor(model, el, signal) {
    super();
    this.model = model;
    this.el = el;
    this.signal = signal;
    this.pieces = new Map();
    this.frames = new Map();
    this.cells = new Map();
    this.trees = new WeakMap(); // what hosts were built from
    this.rev = -1;
    this.at = [-1, 0];
    this.ops = 0;
    this.tab = "handoff";
    this.playing = null;
    this.session = new Session(model, () => this.say({ t: "ping" }), (before) => this.sessionChanged(before));
    this.wanted = null;
    this.asked = new Set();
    this.onTheWay = [];
    this.released = true; // no key is held down
    this.reported = "";
    this.reloading = false;
    this.reading = ""; // what is told while a log is on its way and read
    this.speed = 1;
    this.charts = 0;
    this.marks = { broken: [], panels: [], told: {}, notes: [], first: false };
    this.skeleton();
  }

  // Send to Python; a channel that is closed is a lost session, not an error for the console. Who wants more of a
  // lost session than stepping is led to the way back.
  //
  // Whatever is asked for is meant at the stop a person sees, so Python hears of the stop first.
  say(message, buffers = []) {
    if (!GOING.has(message.t) && this.rev >= 0) this.tellPlace();
    if (this.session.state !== "gone") {
      try {
        this.model.send(message, undefined, buffers);
        return true;
      } catch {
        this.session.become("gone");
      }
    }
    if (!GOING.has(message.t)) this.bars.querySelector(".is-lost button")?.focus();
    return false;
  }

  listen() {
    const on = (target, name, handler, options = {}) =>
      target.addEventListener(name, handler, { ...options, signal: this.signal });
    this.onMessage = (message, buffers) => this.hear(message, buffers);
    this.model.on("msg:custom", this.onMessage);
    on(document, "keydown", (event) => this.key(event), { capture: true });
    on(document, "keyup", () => this.release(), { capture: true });
    on(this.root, "click", (event) => this.click(event));
    // Who chose what to do next says so with Enter: the first field gets the focus.
    on(this.frameBox(), "click", (event) => {
      if (!event.target.closest?.(".mx-ops button")) return;
      const field = () => [...this.frameBox().querySelectorAll(".mx-fields input")].find((e) => e.offsetParent);
      setTimeout(() => (field()?.focus(), field()?.select()), FOCUS_AFTER);
    });
    // Who chose with the mouse steps on with keys, and not through the drop-down.
    on(this.frameBox(), "pointerdown", () => (this.byPointer = true), { capture: true });
    on(this.frameBox(), "keydown", () => (this.byPointer = false), { capture: true });
    on(this.frameBox(), "change", (event) => this.byPointer && event.target.matches?.(".mx-top select") && this.focus());
    on(document, "paste", (event) => this.paste(event));
    on(this.frameBox(), "input", (event) => event.target.closest?.(".mx-goto") && this.find(event.target.value));
    on(this.frameBox(), "focusin", (event) => {
      if (event.target.closest?.(".mx-goto")) this.placeBefore = event.target.value;
    });
    on(this.frameBox(), "focusout", (event) => event.target.closest?.(".mx-goto") && this.find(""));
    on(this.mapBody, "wheel", (event) => this.wheel(event), { passive: false });
    this.drag();
    on(this.frameBox(), "pointermove", () => this.showHands());
    on(window, "resize", () => this.fitTalk());
    on(document, "fullscreenchange", () => {
      if (this.talking && !document.body.dataset.voila && !document.fullscreenElement) this.layOut(false);
      else this.fitTalk();
    });
    this.resizer = new ResizeObserver(() => this.measure());
    this.resizer.observe(this.frameBox());
    this.session.start(this.signal);
    on(this.frameBox(), "dragover", (event) => event.preventDefault());
    on(this.frameBox(), "drop", (event) => {
      event.preventDefault();
      const file = event.dataTransfer?.files[0];
      if (file) this.upload(file, file.name);
    });
    this.place(".mx-preflight-slot", this.preflight);
    this.place(".mx-import-slot", this.importer);
    if (new URLSearchParams(location.search).get("layout") === "talk" && document.body.dataset.voila) {
      this.frameBox().dataset.layout = "talk";
      this.fitTalk();
    }
    this.hello();
  }

  hello(again = false) {
    this.say({ t: "hello", again, link: Object.fromEntries(new URLSearchParams(location.search)), ...this.sizes() });
    this.greeted = true;
    this.room = ""; // a kernel that is new has not heard it
    this.onTheWay = []; // a kernel that was not there has answered nothing
    this.choose(this.tab);
  }

  sessionChanged(before) {
    const now = this.session.state;
    this.root.dataset.kernel = now;
    for (const selector of CONTROLS) {
      const part = this.frameBox().querySelector(selector);
      if (part) part.inert = now === "gone"; // widgets whose kernel is gone would answer with an error
    }
    if (now === "cut" || now === "gone") this.giveUp();
    if (now === "alive" && before !== "busy") this.resume();
    this.drawBars();
  }

  // Nothing may wait for an answer that does not come.
  giveUp() {
    if (this.reading) {
      this.read("");
      this.tell("The log was not taken: the connection broke off. Send it again once it is back.", "error");
    }
    this.performKey.disabled = false;
    this.deviceBody.querySelector(".is-waiting")?.remove();
    if (this.session.state === "gone" && this.wanted) {
      this.wanted = null;
      this.root.dataset.state = "ready";
      this.pause();
    }
  }

  // The connection is back: what was on its way may be lost, so both sides say where they are.
  resume() {
    this.asked.clear();
    this.reported = "";
    this.tellPlace();
    this.hello(true);
  }

  // Reload at this step, as soon as there is somebody who answers.
  async reload() {
    this.writeAddress();
    this.reloading = true;
    this.drawBars();
    const file = document.querySelector("meta[name=mx-plotly]")?.content ?? location.href;
    while (this.reloading && !this.signal.aborted) {
      const asked = { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(LOST_AFTER) };
      if (await fetch(file, asked).then(() => true, () => false)) return location.reload();
      await new Promise((resolve) => setTimeout(resolve, PING_EVERY));
    }
    return undefined;
  }

  hear(message, buffers) {
    this.session.heard();
    switch (message.t) {
      case "plan":
        return this.plan(message);
      case "frames":
        return this.take(message);
      case "around":
        return this.around(message);
      case "kernels":
        return this.takeKernels(message);
      case "late":
        return this.takeLate(message);
      case "marks":
        return this.takeMarks(message.marks);
      case "go":
        return this.go(message.at);
      case "tab":
        // What opens by itself takes only the place of the tab it names.
        return message.from && message.from !== this.tab ? undefined : this.choose(message.name);
      case "found":
        return this.takeFound(message);
      case "thread":
        return this.takeThread(message.panel);
      case "why":
        return this.takeWhy(message.panel);
      case "taken":
        this.taken?.();
        return undefined;
      case "read":
        return this.read("");
      case "device":
        this.performKey.disabled = false;
        this.showBadge(message.badge);
        this.put(this.deviceBody, message.panel);
        return undefined;
      case "file":
        return this.save(message.name, new Uint8Array(buffers[0].buffer ?? buffers[0]));
      case "plotly":
        this.givePlotly?.(new Uint8Array(buffers[0].buffer ?? buffers[0]));
        return undefined;
      default:
        return undefined;
    }
  }

  plan(message) {
    const fresh = message.rev !== this.rev;
    if (fresh) {
      this.forgetFrames();
      this.cells.clear();
    }
    // A page that moved on while Python followed stays where it is; else Python says where.
    const at = message.mode === "follow" && this.rev >= 0 ? this.at : message.at;
    if (message.mode !== "follow") this.pause();
    this.rev = message.rev;
    this.ops = message.ops;
    this.ghost = message.ghost;
    this.limit = message.limit;
    this.at = at;
    this.scrub.max = String(Math.max(message.ops - 1, 0));
    this.scrub.disabled = message.ops < 2;
    this.around(message);
    this.take(message.first);
    // What was told before was a place in other pictures.
    const follows = message.mode === "follow";
    this.reported = follows ? "" : this.key_of(message.at);
    this.go(follows ? (this.wanted ?? at) : at, { report: follows });
    if (message.mode === "play") {
      if (document.activeElement?.closest(".mx-fields")) this.focus(); // it was applied: keys step again
      this.playInto(message.at[0]);
    }
  }

  take(message) {
    if (message.gone) this.forget(message.gone);
    if (message.rev !== this.rev) return;
    for (const [digest, text] of Object.entries(message.pieces)) this.pieces.set(digest, JSON.parse(text));
    for (const [key, frame] of Object.entries(message.frames)) {
      this.frames.set(key, frame);
      this.cells.set(Number(key.split(":")[0]), frame.n);
      this.asked.delete(key);
      this.onTheWay = this.onTheWay.filter(([op]) => op !== Number(key.split(":")[0]));
      if (this.wanted) this.pass(key.split(":").map(Number));
      if (key === this.key_of(this.at)) this.schedule(); // the stop shown, drawn anew: it may have more panels by now
    }
    if (this.wanted) this.go(this.wanted, { report: true });
  }

  // What surrounds the pictures. Python says what is new of it; what the page told itself gives way.
  around({ notice, earlier, marks, device, formats, question, preflight, link }) {
    if (notice !== undefined) this.noticed = notice;
    if (this.notice !== this.noticed || earlier !== undefined) {
      this.notice = this.noticed;
      this.earlier = earlier ?? this.earlier;
      this.drawBars();
    }
    if (marks) this.takeMarks(marks);
    if (device !== undefined) this.showBadge(device);
    if (formats) this.offerFormats(formats);
    if (question !== undefined) this.asking = question;
    if (preflight) {
      this.put(this.preflight, preflight);
      const room = this.preflight.parentElement; // where it does not fit it is scrolled, with keys as well
      if (room) room.tabIndex = room.scrollHeight > room.clientHeight ? 0 : -1;
    }
    if (link) this.link = link;
    this.writeAddress();
  }

  offerFormats(formats) {
    this.formats.replaceChildren(
      ...formats.map(([name, title]) => {
        const made = make("button", "mx-key", title);
        made.type = "button";
        made.addEventListener("click", () => this.say({ t: "export", format: name }));
        return made;
      }),
    );
  }

  close() {
    clearInterval(this.playing);
    this.resizer?.disconnect();
    if (this.onMessage) this.model.off("msg:custom", this.onMessage);
  }
}

// A page puts a widget's element into the document after it was rendered: measure only then.
function attached(el, signal) {
  if (el.isConnected) return Promise.resolve();
  return new Promise((resolve) => {
    const watcher = new MutationObserver(() => {
      if (!el.isConnected) return;
      watcher.disconnect();
      resolve();
    });
    watcher.observe(document.documentElement, { childList: true, subtree: true });
    signal.addEventListener("abort", () => watcher.disconnect());
  });
}

export default {
  render({ model, el }) {
    const controller = new AbortController();
    const stage = new Stage(model, el, controller.signal);
    attached(el, controller.signal).then(() => stage.listen());
    return () => {
      controller.abort();
      stage.close();
    };
  },
};
