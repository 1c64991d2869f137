// The stage: draws a run that Python computed, one stop at a time, without asking Python again.
//
// Rule 1: nothing here knows what a memslot is. Figures and document trees arrive finished; this file
//         puts them on the page, moves the cursor, hears the keys and says when the kernel is gone.
// Rule 2: text is text. Trees are built with createElement and text nodes from a short list of tags.
// Rule 3: the newest wanted stop wins; at most one picture is drawn per animation frame.

const TAGS = new Set(
  ("div span p b i em strong small code kbd table thead tbody tr th td ul ol li button h2 h3 h4 section " +
    "svg path circle rect line text g dl dt dd a label caption colgroup col details summary").split(" "),
);
const SVG = new Set(["svg", "path", "circle", "rect", "line", "text", "g"]);
const ATTRIBUTES = new Set(
  ("class id title role href colspan rowspan scope type tabindex disabled d viewBox x y x1 x2 y1 y2 width height r cx " +
    "cy transform target rel").split(" "),
);
const PING_EVERY = 2000;
const SETTLE_AFTER = 140;
const FOCUS_AFTER = 150; // the fields of the operation have been exchanged by then
const LOST_AFTER = 5000;
const REST_AFTER = 10_000; // without a hand on the page: no ping then, so that a session left alone counts as idle
const GOING = new Set(["at", "ping", "room", "size", "tab", "want"]); // messages of stepping, which a lost session needs not
const CONTROLS = [".mx-top", ".mx-compose", ".mx-map-tools"];
const PLAY_STEP = 600;
const SPEEDS = [0.25, 0.5, 1, 2, 4];
const LONGEST_NOTE = 200;
const STORY_TIME = 1200;
// A talk is laid out for 960 x 540 pixels and enlarged as a whole: 24 px and more at 1920 x 1080. Where that would be
// less than 20 px, it is enlarged to 20 and shown half by half.
const TALK = { width: 960, height: 540, least: 20 / 12, narrowest: 800 };
const HANDS_SHOWN = 3000;
const END = 1e6; // a step beyond the last of any operation
const AHEAD = 14;
const AT_ONCE = 2; // stops asked for before the first of them has come
const PIECE = 1 << 20;
const FREE_AFTER = 5000;
const TABS = [
  ["handoff", "Hand-off"],
  ["guards", "Guards"],
  ["table", "Slots"],
  ["kernels", "Kernels"],
  ["kvmgt", "KVMGT"],
  ["compare", "Compare"],
  ["over-time", "Over time"],
  ["calls", "Calls"],
];
const OVER_TIME = "over-time";
const BY_MESSAGE = new Set(["kernels", "kvmgt", "compare", OVER_TIME, "calls"]); // Python draws them while they are open
const PARTS = [
  [".mx-top", "Story and machine"],
  [".mx-compose", "Next operation"],
  [".mx-map-tools", "Scale of the map"],
];
const HELP = [
  ["→ ←", "next, previous operation"],
  ["⇧→ ⇧←", "one step inside an operation"],
  ["Home End", "start, end of the run"],
  ["Space", "play, pause; it stops at refusals and violations"],
  ["[ ]", "play slower, faster"],
  ["!", "go to the first violation of an invariant"],
  ["N", "write a note at this stop; the notes of the run"],
  ["U", "undo zoom, focus or scale of the map; operations stay"],
  ["Enter", "apply the composed operation"],
  ["1 to 8", "tabs; in the opening, 1 to 3 are the answers"],
  ["PgDn PgUp", "next, previous beat of the guided story"],
  ["K", "attach or detach KVMGT"],
  ["V", "next kernel"],
  ["I", "turn the test of 6.6 round: as posted, as merged"],
  ["J", "Kernels tab: go to the first difference"],
  ["↑ ↓ ← →", "in a table of the Kernels tab: from cell to cell"],
  ["O", "hand-off: only what this step changes"],
  ["F", "fit the map to the operation"],
  ["+ −", "zoom the map; on the line of all memory, drag to choose what it shows"],
  ["< >", "move what the map shows along the memory"],
  ["G or /", "go to an address, page, slot or room for one; it is answered while you type"],
  ["Ctrl+V", "beside the fields: replay what is pasted, or go to the place"],
  ["W", "why the value under the focus is what it is"],
  ["L", "the thread, claim by claim"],
  ["B", "the “because” drawer"],
  ["C", "the composed operation"],
  ["T", "light, dark, high contrast"],
  ["P", "layout for a talk: large, few parts"],
  ["X", "in a talk: the other half of what is too much for one screen"],
  ["?", "keys, and what the words mean"],
  ["Esc", "close, leave a field"],
];

function build(node) {
  if (typeof node === "string") return document.createTextNode(node);
  const [tag, attrs, ...children] = node;
  if (!TAGS.has(tag)) throw new Error(`no such tag: ${tag}`);
  const element = SVG.has(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attrs)) {
    if (name === "vars") {
      for (const [key, v] of Object.entries(value)) if (key.startsWith("--")) element.style.setProperty(key, String(v));
    } else if (name === "href") {
      if (/^https:\/\//.test(value)) element.setAttribute(name, value);
    } else if (ATTRIBUTES.has(name) || name.startsWith("data-") || name.startsWith("aria-")) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  for (const child of children) element.appendChild(build(child));
  return element;
}

function make(tag, cls, text) {
  const element = document.createElement(tag);
  if (cls) element.className = cls;
  if (text !== undefined) element.textContent = text;
  return element;
}

// Plotly is loaded once per page: as a file where the page's template offers it, else from the kernel.
// Plotly's script takes a second to start on a slow machine. It is brought once the first picture stands, which is
// sketched; the dashboard's page names the file, elsewhere, in JupyterLab, Python sends it.
function loadPlotly(ask) {
  globalThis.__mxPlotly ??= new Promise((resolve, reject) => {
    if (globalThis.Plotly) return resolve(globalThis.Plotly);
    const run = (src) => {
      const script = document.createElement("script");
      script.async = true;
      script.src = src;
      script.addEventListener("load", () => resolve(globalThis.Plotly));
      script.addEventListener("error", () => reject(new Error("plotly did not load")));
      document.head.append(script);
    };
    const file = document.querySelector("meta[name=mx-plotly]");
    if (file) return run(file.content);
    return ask((bytes) => run(URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }))));
  });
  return globalThis.__mxPlotly;
}

// How much an element is enlarged: boxes on the screen are that much larger than the lengths in its style.
function zoomOf(element) {
  return element.currentCSSZoom ?? 1;
}

// -- a sketch of a figure, until plotly can draw it ------------------------------------------------

const DASHES = { dash: [9, 9], dot: [3, 3] };
const DIAGONALS = { "/": [1], "\\": [-1], x: [1, -1] };

function outline(xs, ys, height) {
  const path = new Path2D();
  let pen = false;
  xs.forEach((x, i) => {
    if (x === null) pen = false;
    else if (pen) path.lineTo(x, height - ys[i]);
    else path.moveTo(x, height - ys[i]);
    pen = x !== null;
  });
  return path;
}

function hatch(draw, path, { shape, fgcolor, size, solidity }, { width, height }) {
  draw.save();
  draw.clip(path);
  draw.strokeStyle = draw.fillStyle = fgcolor;
  draw.lineWidth = shape === "x" ? size - size * Math.sqrt(1 - solidity) : size * solidity;
  draw.beginPath();
  for (const slope of DIAGONALS[shape] ?? []) {
    for (let at = -height; at < width + height; at += size * Math.SQRT2) {
      draw.moveTo(at, slope > 0 ? height : 0);
      draw.lineTo(at + height, slope > 0 ? 0 : height);
    }
  }
  draw.stroke();
  if (shape === ".") {
    const radius = Math.sqrt((solidity * size * size) / Math.PI);
    for (let x = size / 2; x < width; x += size) {
      for (let y = size / 2; y < height; y += size) draw.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
    }
  }
  draw.restore();
}

function marker(symbol, size) {
  const path = new Path2D();
  const r = size / 2;
  const [kind] = symbol.split("-");
  const corners = {
    diamond: [4, r * 1.3, 0],
    octagon: [8, r, Math.PI / 8],
    square: [4, r * 1.41, Math.PI / 4],
    triangle: [3, r, Math.PI / 2],
  }[kind];
  if (corners) {
    const [n, far, turn] = corners;
    for (let i = 0; i < n; i += 1) {
      const angle = turn + (i * 2 * Math.PI) / n;
      path.lineTo(far * Math.sin(angle), -far * Math.cos(angle));
    }
    path.closePath();
  } else if (kind !== "x") path.arc(0, 0, r, 0, 2 * Math.PI);
  if (/^x|-x/.test(symbol)) {
    const far = kind === "diamond" ? r * 0.65 : r;
    path.moveTo(-far, -far);
    path.lineTo(far, far);
    path.moveTo(-far, far);
    path.lineTo(far, -far);
  }
  return path;
}

function sketch(canvas, traces, layout) {
  const { width, height } = layout;
  const scale = (globalThis.devicePixelRatio || 1) * zoomOf(canvas);
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const draw = canvas.getContext("2d");
  draw.scale(scale, scale);
  for (const { mode, x, y, line, marker: look, fill, fillcolor, fillpattern } of traces) {
    if (mode === "lines") {
      const path = outline(x, y, height);
      if (fill) {
        draw.fillStyle = fillcolor;
        draw.fill(path);
        if (fillpattern) hatch(draw, path, fillpattern, layout);
      }
      draw.setLineDash(DASHES[line.dash] ?? []);
      draw.strokeStyle = line.color;
      draw.lineWidth = line.width;
      if (line.width) draw.stroke(path);
      draw.setLineDash([]);
    } else {
      const open = /open|thin/.test(look.symbol);
      const path = marker(look.symbol, look.size);
      x.forEach((at, i) => {
        draw.save();
        draw.translate(at, height - y[i]);
        draw.fillStyle = draw.strokeStyle = look.color;
        draw.lineWidth = open ? look.line.width : 0;
        if (open) draw.stroke(path);
        else draw.fill(path);
        draw.restore();
      });
    }
  }
}

// Words of a figure are drawn here: plotly would measure each of them, which costs more than all its shapes.
const ANCHOR = { "middle right": "start", "middle center": "middle", "middle left": "end" };

function splitFigure(spec) {
  const shapes = [];
  let words = null;
  let spots = null;
  for (const trace of spec.data) {
    if (trace.mode === "text") words = trace;
    else if (trace.customdata) spots = trace;
    else shapes.push(trace);
  }
  return { shapes, words, spots, layout: spec.layout };
}

class Figure {
  constructor(host, onSelect) {
    this.host = host;
    this.plot = make("div", "mx-plot");
    this.canvas = make("canvas", "mx-sketch");
    this.words = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.words.setAttribute("class", "mx-words");
    this.tip = make("div", "mx-tip");
    this.tip.hidden = true;
    host.append(this.plot, this.canvas, this.words, this.tip);
    this.digest = null;
    this.spots = null;
    host.addEventListener("pointermove", (event) => this.point(event));
    host.addEventListener("pointerleave", () => (this.tip.hidden = true));
    host.addEventListener("click", (event) => {
      const at = this.dragged ? -1 : this.nearest(event);
      if (at >= 0 && this.spots.customdata[at]) onSelect(this.spots.customdata[at]);
    });
  }

  // Draw at once, as a sketch; `settle` has plotly draw the same when there is time.
  draw(digest, spec) {
    if (this.digest === digest) return;
    this.digest = digest;
    const { shapes, words, spots, layout } = splitFigure(spec);
    this.spots = spots;
    this.size = layout;
    this.due = { shapes, layout };
    this.host.style.setProperty("--w", `${layout.width}px`);
    this.host.style.setProperty("--h", `${layout.height}px`);
    this.write(words, layout);
    this.tip.hidden = true;
    sketch(this.canvas, shapes, layout);
    this.host.dataset.pen = "sketch";
  }

  async settle(plotly) {
    const due = this.due;
    if (!due) return;
    this.due = null;
    await plotly.react(this.plot, structuredClone(due.shapes), structuredClone(due.layout), {
      staticPlot: true,
      displayModeBar: false,
      showSendToCloud: false,
      displaylogo: false,
    });
    if (!this.due) this.host.dataset.pen = "plotly";
  }

  write(words, layout) {
    const svg = this.words;
    svg.setAttribute("width", layout.width);
    svg.setAttribute("height", layout.height);
    const nodes = [];
    if (words) {
      for (let i = 0; i < words.x.length; i += 1) {
        const text = document.createElementNS("http://www.w3.org/2000/svg", "text");
        const bold = words.text[i].startsWith("<b>");
        text.setAttribute("x", words.x[i]);
        text.setAttribute("y", layout.height - words.y[i]);
        text.setAttribute("text-anchor", ANCHOR[words.textposition[i]]);
        text.setAttribute("fill", words.textfont.color[i]);
        text.setAttribute("font-size", words.textfont.size[i]);
        if (bold) text.setAttribute("font-weight", "600");
        text.textContent = bold ? words.text[i].slice(3, -4) : words.text[i];
        nodes.push(text);
      }
    }
    svg.replaceChildren(...nodes);
  }

  nearest(event) {
    if (!this.spots) return -1;
    const box = this.plot.getBoundingClientRect();
    const zoom = zoomOf(this.plot);
    const x = (event.clientX - box.left) / zoom;
    const y = this.size.height - (event.clientY - box.top) / zoom;
    let best = -1;
    let least = 24 * 24;
    for (let i = 0; i < this.spots.x.length; i += 1) {
      const d = (this.spots.x[i] - x) ** 2 + (this.spots.y[i] - y) ** 2;
      if (d < least) [least, best] = [d, i];
    }
    return best;
  }

  point(event) {
    const at = this.nearest(event);
    this.tip.hidden = at < 0;
    if (at < 0) return;
    const lines = this.spots.hovertext[at].split("<br>").map((line) => {
      const bold = /^<b>(.*?)<\/b>(.*)$/.exec(line);
      const row = make("div");
      if (bold) row.append(make("b", "", bold[1]), bold[2]);
      else row.textContent = line;
      return row;
    });
    this.tip.replaceChildren(...lines);
    const box = this.host.getBoundingClientRect();
    const zoom = zoomOf(this.host);
    const x = Math.min((event.clientX - box.left) / zoom + 14, box.width / zoom - this.tip.offsetWidth - 4);
    const y = (event.clientY - box.top) / zoom + 16;
    const over = y + this.tip.offsetHeight > box.height / zoom ? y - this.tip.offsetHeight - 28 : y;
    this.tip.style.transform = `translate(${Math.max(x, 0)}px, ${Math.max(over, 0)}px)`;
  }
}

// Slots over time: what a pointer is over are areas, and every place belongs to an operation.
class TimeFigure extends Figure {
  constructor(host, onOperation) {
    super(host, () => {});
    this.cursor = make("div", "mx-over-cursor");
    this.cursor.hidden = true;
    host.append(this.cursor);
    host.addEventListener("click", (event) => {
      const op = this.operationAt(event);
      if (op !== null) onOperation(op);
    });
  }

  draw(digest, spec) {
    super.draw(digest, spec);
    this.columns = spec.columns;
    this.span = spec.span;
    this.boxes = spec.boxes;
    this.spots = { hovertext: spec.boxes.map((box) => box[4]) };
  }

  place(event) {
    const box = this.plot.getBoundingClientRect();
    const zoom = zoomOf(this.plot);
    return [(event.clientX - box.left) / zoom, (event.clientY - box.top) / zoom];
  }

  nearest(event) {
    const [x, y] = this.place(event);
    return (this.boxes ?? []).findIndex(([x0, x1, y0, y1]) => x >= x0 && x <= x1 && y >= y0 && y <= y1);
  }

  operationAt(event) {
    const [x, y] = this.place(event);
    const found = (this.columns ?? []).find(([x0, x1, y0, y1]) => x >= x0 && x <= x1 && y >= y0 && y <= y1);
    if (!found) return null;
    const [x0, x1, , , first, last] = found;
    return Math.min(first + Math.floor(((x - x0) * (last - first)) / (x1 - x0)), last - 1);
  }

  // The line at the end of an operation; a step moves it without asking Python.
  point_at(op) {
    const [x0, x1, , , first, last] = this.columns?.[0] ?? [];
    this.cursor.hidden = x0 === undefined || op < first - 1 || op >= last;
    if (this.cursor.hidden) return;
    this.cursor.style.left = `${x0 + (Math.max(op - first + 0.5, 0) * (x1 - x0)) / (last - first)}px`;
    this.cursor.style.top = `${this.span[0]}px`;
    this.cursor.style.height = `${this.span[1] - this.span[0] + 4}px`;
  }
}

// What lies between the page and its kernel.
//   alive  it answers
//   busy   it works on one thing for long
//   cut    the connection is down, and tried again
//   gone   no kernel knows this page any more: it died, was ended as idle, or the server was started anew
class Session {
  constructor(model, ping, onChange) {
    Object.assign(this, { model, ping, onChange });
    this.state = "alive";
    this.touched = performance.now();
    this.unanswered = null; // since when a ping waits
    this.retried = -LOST_AFTER;
  }

  get kernel() {
    return this.model.widget_manager?.kernel;
  }

  get connected() {
    return (this.kernel?.connectionStatus ?? "connected") === "connected";
  }

  start(signal) {
    const heart = setInterval(() => this.beat(), PING_EVERY);
    const onStatus = (_, status) => /restarting|terminating|dead/.test(status) && this.become("gone");
    this.kernel?.statusChanged?.connect(onStatus);
    for (const name of ["pointermove", "pointerdown", "keydown", "focus", "visibilitychange"]) {
      window.addEventListener(name, () => this.touch(), { capture: true, passive: true, signal });
    }
    window.addEventListener("online", () => this.connected || this.retry(), { signal });
    signal.addEventListener("abort", () => {
      clearInterval(heart);
      this.kernel?.statusChanged?.disconnect(onStatus);
    });
  }

  touch() {
    const rested = performance.now() - this.touched > REST_AFTER;
    this.touched = performance.now();
    if (rested) this.beat();
  }

  beat() {
    const now = performance.now();
    if (this.kernel?.connectionStatus === "disconnected") this.retry(); // Jupyter tries a few minutes and gives up
    if (!this.connected && this.unanswered !== null) this.unanswered = now; // the clock stands still
    this.become(this.judge(now));
    if (!this.connected || now - (this.unanswered ?? now) > PING_EVERY / 2) this.ask();
    const wanted = now - this.touched < REST_AFTER || this.state !== "alive";
    if (this.state === "gone" || !this.connected || !wanted) return;
    this.unanswered ??= now;
    this.ping();
  }

  judge(now) {
    if (this.state === "gone" || this.kernel?.status === "dead" || this.kernel?.isDisposed) return "gone";
    if (!this.connected) return "cut";
    if (this.unanswered === null || now - this.unanswered <= LOST_AFTER) return this.state;
    return this.kernel?.status === "busy" ? "busy" : "gone";
  }

  // Who tries to reconnect is not told that the server knows no such kernel, nor is a page whose kernel was ended as idle.
  async ask() {
    const { id, serverSettings } = this.kernel ?? {};
    if (!id || !serverSettings || this.state === "gone") return;
    const headers = serverSettings.token ? { Authorization: `token ${serverSettings.token}` } : {};
    const answer = await fetch(`${serverSettings.baseUrl}api/kernels/${id}`, { headers, cache: "no-store" }).catch(() => null);
    if (answer?.status === 404 || answer?.status === 403) this.become("gone");
    // Jupyter waits longer from try to try; now it need not.
    else if (answer && !this.connected && performance.now() - this.retried > LOST_AFTER) this.retry();
  }

  heard() {
    this.unanswered = null;
    this.become("alive");
  }

  become(state) {
    if (state === this.state) return;
    const before = this.state;
    this.state = state;
    this.onChange(before);
  }

  retry() {
    this.retried = performance.now();
    if (this.kernel?.isDisposed) return; // Jupyter has given it up, and would throw
    this.kernel?.reconnect?.().catch(() => {}); // still cut: it is tried again
  }
}

class Stage {
  constructor(model, el, signal) {
    this.model = model;
    this.el = el;
    this.signal = signal;
    this.pieces = new Map();
    this.frames = new Map();
    this.cells = new Map();
    this.rev = -1;
    this.at = [-1, 0];
    this.ops = 0;
    this.tab = "handoff";
    this.playing = null;
    this.session = new Session(model, () => this.say({ t: "ping" }), (before) => this.sessionChanged(before));
    this.wanted = null;
    this.asked = new Set();
    this.onTheWay = [];
    this.reported = "";
    this.reloading = false;
    this.reading = ""; // what is told while a log is on its way and read
    this.speed = 1;
    this.charts = 0;
    this.marks = { broken: [], panels: [], told: {}, notes: [], first: false };
    this.skeleton();
  }

  // -- page ----------------------------------------------------------------------------------------

  skeleton() {
    const root = (this.root = make("div", "mx"));
    root.dataset.state = "starting";
    root.dataset.op = "-1";
    root.dataset.cell = "0";
    root.dataset.playing = "no";
    const section = (area, label) => {
      const made = make("section", `mx-${area}`);
      made.setAttribute("aria-label", label);
      root.append(made);
      return made;
    };
    this.bars = section("bars", "Messages");
    this.map = section("map", "Guest memory");
    this.mapHead = make("div", "mx-map-head");
    this.mapBody = make("div", "mx-figure mx-map-figure");
    this.mapBody.setAttribute("role", "img");
    this.because = make("div", "mx-because");
    this.map.append(this.mapHead, this.mapBody, this.because);
    this.tabs = section("tabs", "What happens inside");
    this.rail = section("rail", "Because");
    this.told = make("div", "mx-told");
    this.preflight = section("preflight", "Preflight");
    this.importer = section("import", "Logs");
    this.buildImporter();
    this.time = section("time", "Operations");
    this.buildCaption(section("caption", "In a sentence"));
    this.timeBody = make("div", "mx-time-body");
    this.foot();
    this.live = make("div", "mx-live");
    this.live.setAttribute("aria-live", "polite");
    this.help = make("div", "mx-help");
    this.help.hidden = true;
    this.help.setAttribute("role", "dialog");
    this.help.setAttribute("aria-label", "Keys and words");
    this.thread = make("div", "mx-thread");
    this.thread.hidden = true;
    this.thread.setAttribute("role", "dialog");
    this.thread.setAttribute("aria-label", "The thread, claim by claim");
    this.why = make("div", "mx-why");
    this.why.hidden = true;
    this.why.setAttribute("role", "dialog");
    this.why.setAttribute("aria-label", "Why this value");
    root.append(this.live, this.help, this.thread, this.why);
    this.figure = new Figure(this.mapBody, (key) => this.say({ t: "slot", key }));
    this.buildTabs();
    this.buildHelp();
    this.buildSheets();
    this.buildCard();
    this.wait = make("p", "mx-wait", "Starting the model");
    this.mapBody.append(this.wait);
    this.el.append(root);
  }

  foot() {
    const foot = make("div", "mx-foot");
    this.scrub = make("input", "mx-scrub");
    Object.assign(this.scrub, { type: "range", min: "-1", max: "0", value: "-1", step: "1" });
    this.scrub.setAttribute("aria-label", "operation");
    const button = (text, label, action) => {
      const made = make("button", "mx-key", text);
      made.type = "button";
      made.setAttribute("aria-label", label);
      made.addEventListener("click", action);
      foot.append(made);
      return made;
    };
    foot.append(this.scrub);
    this.badge = button("Model only", "perform on the machine’s own KVM", () => this.openSheet("device"));
    button("Export", "export the run", () => this.openSheet("export"));
    button("Note", "notes of the run", () => this.openNotes());
    this.firstButton = button("First violation", "go to the first violation of an invariant", () => this.say({ t: "first" }));
    button("←", "previous operation", () => this.byOp(-1));
    button("⇧←", "previous step", () => this.byCell(-1));
    this.playButton = button("▶", "play", () => this.toggle());
    this.speedButton = button("1×", "speed of play, 1 times", () => this.setSpeed(SPEEDS[(SPEEDS.indexOf(this.speed) + 1) % SPEEDS.length]));
    this.speedButton.classList.add("mx-speed");
    button("⇧→", "next step", () => this.byCell(1));
    button("→", "next operation", () => this.byOp(1));
    button("?", "keys and words", () => this.showHelp(true));
    button("Thread", "the thread, claim by claim", () => this.showThread(true));
    button("Talk", "layout for a talk (P)", () => this.layOut(true));
    this.scrub.addEventListener("input", () => this.go([Number(this.scrub.value), END]));
    this.time.append(this.timeBody, foot);
  }

  buildTabs() {
    const bar = make("div", "mx-tabbar");
    const list = make("div", "mx-tablist");
    list.setAttribute("role", "tablist");
    this.panels = {};
    TABS.forEach(([name, title], at) => {
      const tab = make("button", "mx-tab");
      tab.type = "button";
      tab.setAttribute("role", "tab");
      tab.dataset.tab = name;
      tab.append(make("kbd", "", String(at + 1)), ` ${title}`);
      tab.addEventListener("click", () => this.choose(name));
      list.append(tab);
      const panel = (this.panels[name] = make("div", `mx-panel mx-panel-${name}`));
      panel.setAttribute("role", "tabpanel");
    });
    this.tabNote = make("span", "mx-tabnote");
    this.onlyKey = make("button", "mx-key mx-only", "Only changes");
    this.onlyKey.type = "button";
    this.onlyKey.setAttribute("aria-pressed", "false");
    this.onlyKey.addEventListener("click", () => this.showOnlyChanges());
    bar.append(list, this.tabNote, this.onlyKey);
    this.question = make("div", "mx-question");
    this.slide = make("div", "mx-slide");
    this.strip = make("div", "mx-strip");
    this.fields = make("div", "mx-fields-panel");
    this.arraysHost = make("div", "mx-figure mx-arrays");
    this.ledger = make("div", "mx-ledger");
    this.arrays = new Figure(this.arraysHost, () => {});
    const middle = make("div", "mx-handoff");
    this.unchanged = make("p", "mx-unchanged", "This step changes no field of the slot.");
    this.unchanged.hidden = true;
    const table = make("div", "mx-fields-part");
    table.append(this.fields, this.unchanged);
    middle.append(table, this.arraysHost);
    this.panels.handoff.append(middle, this.ledger);
    this.kernels = { matrix: make("div"), eras: make("div") };
    this.panels.kernels.append(make("p", "empty", "Replaying the run on every kernel"), ...Object.values(this.kernels));
    this.buildOverTime();
    this.tabs.append(bar, this.question, this.slide, this.strip, ...Object.values(this.panels));
    const asked = new URLSearchParams(location.search).get("tab");
    this.choose(TABS.some(([name]) => name === asked) && document.body.dataset.voila ? asked : this.tab);
  }

  buildOverTime() {
    const host = make("div", "mx-figure mx-over-figure");
    host.setAttribute("role", "img");
    this.over = { head: make("div", "mx-over-head"), chart: host, words: make("div", "mx-over-words only-read") };
    this.panels[OVER_TIME].append(...Object.values(this.over));
    this.overTime = new TimeFigure(host, (op) => this.go([op, END]));
    // How large the chart may be is known once its head stands, and changes with the messages above.
    new ResizeObserver(() => this.tellRoom()).observe(host);
  }

  tellRoom() {
    const { offsetWidth: width, offsetHeight: height } = this.over.chart;
    const now = `${width}/${height}`;
    if (this.tab !== OVER_TIME || !width || now === this.room || !this.over.head.childElementCount) return;
    this.room = now;
    this.say({ t: "room", width, height });
  }

  // -- a talk --------------------------------------------------------------------------------------

  buildCaption(host) {
    this.captionHost = host;
    host.tabIndex = -1;
    this.caption = make("div", "mx-caption-words");
    const keys = make("div", "mx-talk-keys");
    const key = (text, label, action) => {
      const made = make("button", "mx-key", text);
      made.type = "button";
      made.setAttribute("aria-label", label);
      made.addEventListener("click", action);
      keys.append(made);
    };
    key("⇧←", "previous step", () => this.byCell(-1));
    key("⇧→", "next step", () => this.byCell(1));
    key("X", "the other half", () => this.otherHalf());
    key("Leave", "leave the layout of a talk", () => this.layOut(false));
    host.append(this.caption, keys);
  }

  get talking() {
    return this.frameBox().dataset.layout === "talk";
  }

  // Lay the page out for a talk, or as usual again. In a notebook a cell is too small for one: it fills the screen.
  layOut(talk) {
    const box = this.frameBox();
    if (talk) {
      box.dataset.layout = "talk";
      box.dataset.drawer = "none";
      if (!document.body.dataset.voila) box.requestFullscreen?.().catch(() => {}); // a cell it stays, then
    } else {
      delete box.dataset.layout;
      delete box.dataset.half;
      delete box.dataset.both;
      if (document.fullscreenElement === box) document.exitFullscreen();
    }
    this.fitTalk();
    this.say({ t: "size", ...this.sizes() });
    this.writeAddress();
    this.focus();
  }

  fitTalk() {
    const box = this.frameBox();
    if (!this.talking) return box.style.removeProperty("--zoom");
    const whole = document.body.dataset.voila || document.fullscreenElement === box;
    const width = whole ? innerWidth : box.parentElement.clientWidth;
    const height = whole ? innerHeight : 768;
    const both = Math.min(width / TALK.width, height / TALK.height);
    const halves = both < TALK.least;
    const zoom = halves ? Math.min(TALK.least, Math.max(width / TALK.narrowest, 1)) : both;
    box.style.setProperty("--zoom", String(zoom));
    box.toggleAttribute("data-both", !halves);
    box.dataset.half ??= "tab";
    return undefined;
  }

  otherHalf() {
    const box = this.frameBox();
    if (!this.talking) return;
    box.dataset.half = box.dataset.half === "map" ? "tab" : "map";
    this.measure();
  }

  buildHelp() {
    const list = make("dl");
    for (const [keys, what] of HELP) list.append(make("dt", "", keys), make("dd", "", what));
    const close = make("button", "mx-key", "Close");
    close.type = "button";
    close.addEventListener("click", () => this.showHelp(false));
    this.words = make("div", "mx-words-list");
    const head = make("div", "mx-help-head");
    head.append(make("h2", "", "Keys"), close);
    this.help.append(head, list, make("h2", "", "Words"), this.words);
  }

  // The card of a marked word: under the pointer, under the keyboard's focus, or kept open by a press.
  buildCard() {
    this.card = make("div", "mx-card");
    this.card.hidden = true;
    this.card.setAttribute("role", "tooltip");
    this.card.id = `mx-card-${Math.random().toString(36).slice(2)}`;
    this.root.append(this.card);
    this.found = make("div", "mx-found");
    this.found.hidden = true;
    this.found.setAttribute("role", "status");
    this.root.append(this.found);
    const over = (event) => {
      const term = event.target.closest?.("[data-term]");
      if (term && this.root.contains(term)) this.showCard(term);
      else if (!this.card.contains(event.target)) this.hideCard();
    };
    this.root.addEventListener("pointerover", over);
    this.root.addEventListener("focusin", over);
    this.root.addEventListener("pointerleave", () => this.hideCard());
  }

  showCard(term) {
    if (this.carded === term && !this.card.hidden) return;
    this.hideCard();
    this.layOutWords();
    const entry = this.words.querySelector(`[data-word="${CSS.escape(term.dataset.term)}"]`);
    if (!entry) return;
    this.carded = term;
    this.card.replaceChildren(make("b", "", entry.textContent), ...entry.nextElementSibling.cloneNode(true).childNodes);
    this.card.hidden = false;
    term.setAttribute("aria-describedby", this.card.id);
    const frame = this.frameBox().getBoundingClientRect();
    const box = term.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.card;
    const zoom = zoomOf(this.card);
    const left = Math.min(Math.max((box.left - frame.left) / zoom, 8), frame.width / zoom - width - 8);
    const below = (box.bottom - frame.top) / zoom + 6;
    const top = below + height > frame.height / zoom - 8 ? (box.top - frame.top) / zoom - height - 6 : below;
    this.card.style.left = `${left}px`;
    this.card.style.top = `${Math.max(top, 8)}px`;
  }

  hideCard() {
    this.card.hidden = true;
    this.carded?.removeAttribute("aria-describedby");
    this.carded = null;
  }

  // Where a run goes from here: to the machine's own KVM, after one confirmation, and into a file.
  buildSheets() {
    const key = (text, action) => {
      const made = make("button", "mx-key", text);
      made.type = "button";
      made.addEventListener("click", action);
      return made;
    };
    const sheet = (title, ...nodes) => {
      const made = make("div", "mx-sheet");
      made.hidden = true;
      made.setAttribute("role", "dialog");
      made.setAttribute("aria-label", title);
      const head = make("div", "mx-sheet-head");
      head.append(make("h2", "", title), key("Close", () => this.openSheet(null)));
      made.append(head, ...nodes);
      this.root.append(made);
      return made;
    };
    this.deviceBody = make("div", "mx-device");
    this.performKey = key("Perform this run", () => {
      if (!this.say({ t: "perform" })) return;
      this.performKey.disabled = true;
      this.put(this.deviceBody, ["p", { class: "is-waiting" }, "Performing"]);
    });
    this.formats = make("div", "mx-formats");
    this.sheets = {
      device: sheet(
        "On this machine’s own KVM",
        make(
          "p",
          "",
          "Makes the calls of this run on /dev/kvm of the machine that serves the page, beside the model: a VM of its own " +
            "that is gone afterwards, no guest, memory reserved and never touched.",
        ),
        this.performKey,
        this.deviceBody,
      ),
      export: sheet("Export this run", this.formats),
      notes: sheet("Notes", this.buildNotes()),
    };
  }

  // -- notes ---------------------------------------------------------------------------------------

  buildNotes() {
    const part = make("div");
    const row = make("div", "mx-note-row");
    this.noteField = make("input", "mx-note");
    Object.assign(this.noteField, { type: "text", maxLength: LONGEST_NOTE });
    this.noteField.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.saveNote();
    });
    const save = make("button", "mx-key", "Save");
    save.type = "button";
    save.addEventListener("click", () => this.saveNote());
    row.append(this.noteField, save);
    this.noteList = make("ol", "mx-notes");
    part.append(row, this.noteList);
    return part;
  }

  openNotes() {
    this.tellPlace();
    this.noteAt = [...this.at];
    const place = this.noteAt[0] < 0 ? "the start" : `stop ${this.placeOf(this.noteAt)}`;
    this.noteField.setAttribute("aria-label", `note at ${place}`);
    this.noteField.placeholder = `A note at ${place}`;
    this.noteField.value = this.marks.notes.find(([op, cell]) => op === this.noteAt[0] && cell === this.noteAt[1])?.[2] ?? "";
    if (this.sheets.notes.hidden) this.openSheet("notes");
    this.noteField.focus();
  }

  saveNote() {
    this.writeNote(this.noteAt, this.noteField.value);
    this.openSheet("notes");
  }

  writeNote([op, cell], text) {
    this.say({ t: "note", op, cell, text });
  }

  placeOf([op, cell]) {
    return op < 0 ? "0" : `${op + 1}.${cell + 1}`;
  }

  listNotes() {
    this.noteList.replaceChildren(
      ...this.marks.notes.map(([op, cell, text]) => {
        const item = make("li");
        const jump = make("button", "mx-key");
        jump.type = "button";
        jump.append(make("b", "", this.placeOf([op, cell])), text);
        jump.addEventListener("click", () => (this.openSheet("notes"), this.go([op, cell])));
        const away = make("button", "mx-key", "×");
        away.type = "button";
        away.setAttribute("aria-label", `remove the note at ${this.placeOf([op, cell])}`);
        away.addEventListener("click", () => this.writeNote([op, cell], ""));
        item.append(jump, away);
        return item;
      }),
    );
  }

  // -- marks ---------------------------------------------------------------------------------------

  takeMarks(marks) {
    this.marks = marks;
    this.firstButton.dataset.known = marks.first ? "yes" : "no";
    this.root.dataset.violations = String(marks.broken.length);
    this.listNotes();
    this.schedule();
  }

  // Lay marks on the line of operations that is drawn, and say in the rail what they mean here.
  drawMarks() {
    for (const old of this.timeBody.querySelectorAll(".tl-mark")) old.remove();
    for (const node of this.timeBody.querySelectorAll(".tl-node")) {
      const [first, last] = [Number(node.dataset.first), Number(node.dataset.op)];
      const broken = this.marks.broken.find(([op]) => op >= first && op <= last);
      const notes = this.marks.notes.filter(([op]) => op >= first && op <= last);
      node.classList.toggle("is-broken", broken !== undefined);
      node.dataset.label ??= node.getAttribute("aria-label");
      const words = [node.dataset.label];
      if (broken) {
        node.append(build(broken[1]));
        words.push(broken[2]);
      }
      if (notes.length) {
        const mark = build(this.marks.note);
        mark.title = notes.map(([, , text]) => text).join("\n");
        mark.dataset.note = notes[0].slice(0, 2).join(":");
        node.append(mark);
        words.push(...notes.map(([, , text]) => `note: ${text}`));
      }
      node.setAttribute("aria-label", words.join(", "));
    }
    const [op, cell] = this.at;
    const panels = [];
    const broken = this.atEnd() ? this.marks.panels[this.marks.told[op]] : undefined;
    if (broken) panels.push(build(broken));
    const here = this.marks.notes.filter((note) => note[0] === op && (note[1] === cell || this.atEnd()));
    if (here.length) {
      const notes = make("div", "told-notes");
      notes.append(make("h3", "", here.length > 1 ? "Notes" : "Note"), ...here.map(([, , text]) => make("p", "", text)));
      panels.push(notes);
    }
    if (this.marks.status && this.atEnd() && this.root.dataset.question !== "open") panels.push(build(this.marks.status));
    this.told.replaceChildren(...panels);
    const details = this.rail.querySelector(".rail-body > section");
    if (details) details.before(this.told);
    else this.rail.append(this.told);
  }

  atEnd() {
    const [op, cell] = this.at;
    return op < 0 || cell === (this.cells.get(op) ?? 1) - 1;
  }

  // Play stops where a check refused, and where an operation broke an invariant.
  holds() {
    const broken = this.atEnd() && this.marks.broken.some(([op]) => op === this.at[0]);
    return this.frames.get(this.key_of(this.at))?.h || broken;
  }

  openSheet(name) {
    for (const [key, sheet] of Object.entries(this.sheets)) sheet.hidden = key !== name || !sheet.hidden;
    if (name && !this.sheets[name].hidden) this.sheets[name].querySelector("button.mx-key:not([disabled])")?.focus();
    else this.focus();
  }

  showBadge(badge) {
    this.badge.textContent = badge ? badge[0] : "Model only";
    this.badge.setAttribute("aria-label", `${this.badge.textContent}: perform on the machine’s own KVM`);
    this.badge.dataset.tone = badge ? badge[1] : "none";
    if (!badge) this.deviceBody.replaceChildren();
  }

  // The bytes come from Python as they are; the browser asks where to put them, or puts them where it puts files.
  save(name, bytes) {
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([bytes], { type: "text/plain" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), FREE_AFTER);
    this.openSheet(null);
  }

  // A log is sent in pieces, so that neither its size nor the server's longest message matters.
  buildImporter() {
    const paste = make("textarea", "mx-paste");
    paste.placeholder = "Paste a trace or one failing line\nanywhere on the page";
    paste.setAttribute("aria-label", "a trace, or one failing line");
    paste.title = "strace, QEMU’s trace, ftrace, trace-cmd, perf, info mtree -f, JSON lines";
    paste.spellcheck = false;
    const file = make("input");
    file.type = "file";
    file.hidden = true;
    const button = (text, action) => {
      const made = make("button", "mx-key", text);
      made.type = "button";
      made.addEventListener("click", action);
      return made;
    };
    const row = make("div", "mx-import-row");
    row.append(
      button("Replay", () => {
        if (paste.value.trim()) this.upload(new Blob([paste.value]), "pasted text");
        else this.tell("Nothing is pasted yet.", "error");
      }),
      button("Open a file", () => file.click()),
      file,
    );
    file.addEventListener("change", () => {
      if (file.files[0]) this.upload(file.files[0], file.files[0].name);
      file.value = "";
    });
    this.importer.append(paste, row);
  }

  // What is pasted beside a field or into the box for logs is read at once; other fields keep what is pasted.
  paste(event) {
    const target = event.target;
    const box = target.closest?.(".mx-paste");
    const field = target.closest?.("input:not([type=range]), textarea, select, [contenteditable]");
    const inside = this.frameBox().contains(target) || (document.body.dataset.voila && target === document.body);
    if (!inside || (field && !box)) return;
    const text = event.clipboardData?.getData("text/plain") ?? "";
    const file = event.clipboardData?.files[0];
    if (!text.trim() && !file) return;
    event.preventDefault();
    if (box) box.value = text.length < PIECE ? text : "";
    this.upload(file ?? new Blob([text]), file ? file.name : "pasted text");
  }

  // What is typed into the go-to box is answered below it before Enter goes there.
  find(text) {
    clearTimeout(this.finding);
    this.sought = text.trim();
    if (!this.sought) this.found.hidden = true;
    else this.finding = setTimeout(() => this.say({ t: "find", text }), SETTLE_AFTER);
  }

  takeFound({ text, error }) {
    const field = this.frameBox().querySelector(".mx-goto input");
    if (!text || !this.sought || document.activeElement !== field) return;
    this.found.textContent = text;
    this.found.classList.toggle("is-error", error);
    this.found.hidden = false;
    const frame = this.frameBox().getBoundingClientRect();
    const box = field.getBoundingClientRect();
    this.found.style.right = `${Math.max(frame.right - box.right, 8)}px`;
    this.found.style.top = `${box.bottom - frame.top + 4}px`;
  }

  async upload(blob, name) {
    if (this.reading) {
      this.tell(`${name} was not taken: the log before it is still being read.`, "error");
      return;
    }
    if (this.session.state === "cut" || this.session.state === "gone") {
      this.tell(`${name} cannot be sent now: the connection is down.`, "error");
      return;
    }
    const mega = (n) => `${Math.max(1, Math.round(n / (1 << 20)))} MiB`;
    if (blob.size > this.limit) {
      this.tell(
        `${name} has ${mega(blob.size)}; a page takes logs up to ${mega(this.limit)}. ` +
          "Send a part of it or its .gz, or run: explorer replay FILE",
        "error",
      );
      return;
    }
    this.notice = null;
    this.read(`Reading ${name}, ${mega(blob.size)}`);
    for (let at = 0; at === 0 || at < blob.size; at += PIECE) {
      const piece = await blob.slice(at, at + PIECE).arrayBuffer();
      const taken = new Promise((resolve) => (this.taken = resolve));
      this.say({ t: "upload", name, size: blob.size, at }, [new DataView(piece)]);
      if (at + PIECE < blob.size) await taken;
      if (!this.reading) return;
    }
  }

  // Say what is read, until Python has done with it or the connection breaks; what else Python says does not end it.
  read(words) {
    this.reading = words;
    if (!words) this.taken?.();
    this.drawBars();
  }

  tell(text, kind) {
    this.notice = { text, kind, detail: [] };
    this.drawBars();
  }

  // The list of words is long: it is built when somebody asks for it, or for the card of one of them.
  layOutWords() {
    if (this.wordsOf) this.show(this.words, this.wordsOf, "words");
  }

  showHelp(on) {
    this.layOutWords();
    this.help.hidden = !on;
    if (on) this.help.querySelector("button").focus({ preventScroll: true });
    else this.focus();
  }

  // The claims of the thread come when they are first asked for.
  showThread(on) {
    this.thread.hidden = !on;
    if (!on) return this.focus();
    if (!this.thread.childElementCount) this.say({ t: "thread" });
    this.thread.querySelector("button")?.focus();
    return undefined;
  }

  // Ask why a value is what it is here: the one that has the focus, or what the stop is about.
  askWhy(key, all = false) {
    this.say({ t: "why", op: this.at[0], cell: this.at[1], key, all });
  }

  takeWhy(panel) {
    const close = make("button", "mx-key", "Close");
    close.type = "button";
    close.addEventListener("click", () => this.hideWhy());
    this.why.replaceChildren(close, build(panel));
    this.why.hidden = false;
    (this.why.querySelector("[data-op]") ?? close).focus({ preventScroll: true });
  }

  hideWhy() {
    if (this.why.hidden) return;
    this.why.hidden = true;
    this.focus();
  }

  takeThread(panel) {
    const close = make("button", "mx-key", "Close");
    close.type = "button";
    close.addEventListener("click", () => this.showThread(false));
    const head = make("div", "mx-help-head");
    head.append(make("h2", "", "The thread"), close);
    this.thread.replaceChildren(head, build(panel));
    if (!this.thread.hidden) this.thread.querySelector("[data-claim]")?.focus();
  }

  focus() {
    this.root.tabIndex = -1;
    if (this.talking) return this.captionHost.focus({ preventScroll: true });
    this.timeBody.querySelector(".is-current, .tl-cell.is-now")?.focus({ preventScroll: true });
    return undefined;
  }

  // -- talking to Python ---------------------------------------------------------------------------

  // Send to Python; a channel that is closed is a lost session, not an error for the console. Who wants more of a
  // lost session than stepping is led to the way back.
  say(message, buffers = []) {
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
    on(this.root, "click", (event) => this.click(event));
    // Who chose what to do next says so with Enter: the first field gets the focus.
    on(this.frameBox(), "click", (event) => {
      if (!event.target.closest?.(".mx-ops button")) return;
      const field = () => [...this.frameBox().querySelectorAll(".mx-fields input")].find((e) => e.offsetParent);
      setTimeout(() => (field()?.focus(), field()?.select()), FOCUS_AFTER);
    });
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

  frameBox() {
    return this.el.closest(".mx-frame") || this.el.parentElement || this.el;
  }

  // Put a node into a place of the page, which may not be there yet.
  place(selector, node) {
    const put = () => {
      const slot = this.frameBox().querySelector(selector);
      if (slot) slot.append(node);
      return slot !== null;
    };
    node.remove();
    if (put()) return;
    const watcher = new MutationObserver(() => put() && watcher.disconnect());
    watcher.observe(this.frameBox().isConnected ? this.frameBox() : document.body, { childList: true, subtree: true });
    this.signal.addEventListener("abort", () => watcher.disconnect());
  }

  hello(again = false) {
    this.say({ t: "hello", again, link: Object.fromEntries(new URLSearchParams(location.search)), ...this.sizes() });
    this.greeted = true;
    this.room = ""; // a kernel that is new has not heard it
    this.onTheWay = []; // a kernel that was not there has answered nothing
    this.choose(this.tab);
  }

  // What the mouse may press in a talk shows while it moves.
  showHands() {
    const box = this.frameBox();
    box.dataset.moved = "";
    clearTimeout(this.hands);
    this.hands = setTimeout(() => delete box.dataset.moved, HANDS_SHOWN);
  }

  sizes() {
    const width = Math.round(this.frameBox().getBoundingClientRect().width / zoomOf(this.frameBox())) || 1720;
    // A tab may have taken the map's room: it returns as wide as it was.
    if (this.mapBody.offsetWidth) this.mapSize = [this.mapBody.offsetWidth, this.mapBody.offsetHeight];
    const [map, height] = this.mapSize ?? [0, 0];
    return { width, map, talk: this.talking ? height || TALK.height : 0, theme: this.theme() };
  }

  // What lies around the stage are widgets, which cannot say what they are to a screen reader.
  nameParts() {
    for (const [selector, label] of PARTS) {
      const part = this.frameBox().querySelector(selector);
      part?.setAttribute("role", "region");
      part?.setAttribute("aria-label", label);
    }
  }

  measure() {
    this.nameParts();
    const { width, map, talk } = this.sizes();
    const now = `${width}/${map}/${talk}`;
    if (this.measured && this.measured !== now) {
      clearTimeout(this.sizing);
      this.sizing = setTimeout(() => this.say({ t: "size", ...this.sizes() }), 120);
    }
    this.measured = now;
  }

  theme() {
    const chosen = this.frameBox().dataset.theme;
    if (chosen) return chosen;
    if (matchMedia("(prefers-contrast: more)").matches) return "hc";
    return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  }

  nextTheme() {
    const themes = ["light", "dark", "hc"];
    this.frameBox().dataset.theme = themes[(themes.indexOf(this.theme()) + 1) % 3];
    this.say({ t: "size", ...this.sizes() });
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
    if (message.mode === "play") this.playInto(message.at[0]);
  }

  // Show an operation step by step in the time of one glance; a key finishes it at once.
  playInto(op) {
    const cells = this.cells.get(op) ?? 1;
    if (cells < 2) return;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) this.go([op, cells - 1]);
    else this.play(STORY_TIME / cells, [op, cells - 1]);
  }

  start() {
    if (this.started) return;
    this.started = loadPlotly((give) => {
      this.givePlotly = give;
      this.say({ t: "plotly" });
    }).then(
      (plotly) => {
        this.plotly = plotly;
        this.schedule();
      },
      () => {}, // the sketches stay, and show the same
    );
  }

  take(message) {
    if (message.rev !== this.rev) return;
    for (const [digest, text] of Object.entries(message.pieces)) this.pieces.set(digest, JSON.parse(text));
    for (const [key, frame] of Object.entries(message.frames)) {
      this.frames.set(key, frame);
      this.cells.set(Number(key.split(":")[0]), frame.n);
      this.asked.delete(key);
      this.onTheWay = this.onTheWay.filter(([op]) => op !== Number(key.split(":")[0]));
      if (this.wanted) this.pass(key.split(":").map(Number));
    }
    if (this.wanted) this.go(this.wanted, { report: true });
  }

  // Who holds a key is shown what lies on the way, even if the place they are at by now is not there yet.
  pass([op, cell]) {
    const [from, to] = [this.at[0], this.wanted[0]];
    if ((op - from) * (op - to) >= 0) return;
    this.at = [op, cell];
    this.schedule();
  }

  forgetFrames() {
    this.frames.clear();
    this.asked.clear();
    this.onTheWay = [];
  }

  // Tables of the Kernels tab: Python sends those that changed. Focus stays on the cell it was on.
  takeKernels({ panels, rev, done }) {
    for (const [name, tree] of Object.entries(panels)) {
      const host = this.kernels[name];
      const held = host.contains(document.activeElement) ? document.activeElement.dataset.at : undefined;
      this.put(host, tree);
      for (const grid of host.querySelectorAll("[data-grid]")) {
        const cells = [...grid.querySelectorAll("td button")];
        const first = cells.find((cell) => cell.matches("[aria-current], .is-now *")) ?? cells[0];
        for (const cell of cells) cell.tabIndex = cell === first ? 0 : -1;
      }
      if (held) [...host.querySelectorAll("[data-at]")].find((cell) => cell.dataset.at === held)?.focus({ preventScroll: true });
    }
    this.root.dataset.kernels = done ? String(rev) : "busy";
  }

  // The tabs KVMGT, Compare, Over time and Calls: a whole panel, for one stop. Focus stays where it was.
  takeLate({ tab, rev, at, panel, chart, words }) {
    const host = tab === OVER_TIME ? this.over.head : this.panels[tab];
    if (panel) {
      const held = host.contains(document.activeElement) ? document.activeElement.dataset.at : undefined;
      const folds = [...host.querySelectorAll("details")];
      const same = at[0] === this.lateOp; // another step of the operation: what was open, and where it and the focus were
      const reached = () => [...host.querySelectorAll("a, button, summary, [tabindex]")];
      const nth = same ? reached().indexOf(document.activeElement) : -1;
      const unfolded = same ? folds.map((each) => each.open) : [];
      const scrolled = same ? (host.querySelector(".call-lines")?.scrollTop ?? 0) : 0;
      this.put(host, panel);
      host.querySelectorAll("details").forEach((each, n) => (each.open = unfolded[n] ?? false));
      if (held) [...host.querySelectorAll("[data-at]")].find((each) => each.dataset.at === held)?.focus({ preventScroll: true });
      else if (nth >= 0) reached()[nth]?.focus({ preventScroll: true });
      const list = host.querySelector(".call-lines");
      if (list) this.toCurrentLine(list, scrolled);
    }
    this.lateOp = at[0];
    if (chart) {
      this.over.chart.setAttribute("aria-label", chart.says);
      this.overTime.draw(`${rev} ${this.charts++}`, chart);
      this.schedule();
    }
    if (words) this.put(this.over.words, words);
    if (tab === OVER_TIME) {
      this.tellRoom();
      if (!this.overTime.digest) return; // it comes once the page has said how much room there is
    }
    this.root.dataset.late = `${tab} ${rev} ${at.join(":")}`;
  }

  // Scroll a list of lines, and nothing around it, to those of the current step.
  toCurrentLine(list, scrolled) {
    list.scrollTop = scrolled;
    const now = list.querySelector("li.is-now");
    if (!now) return;
    const room = list.getBoundingClientRect();
    const above = now.getBoundingClientRect().top - room.top;
    if (above < 0 || above > (room.height * 3) / 4) list.scrollTop += above - room.height / 3;
  }

  // Move the focus from cell to cell of a table.
  inGrid(event) {
    const grid = event.target.closest?.("[data-grid]");
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!grid || !step || event.shiftKey) return false;
    const rows = [...grid.querySelectorAll("tbody tr")].map((row) => [...row.children].map((cell) => cell.querySelector("button")));
    let y = rows.findIndex((row) => row.includes(event.target));
    let x = rows[y].indexOf(event.target);
    do {
      y += step[0];
      x += step[1];
    } while (rows[y] && x >= 0 && x < rows[y].length && !rows[y][x]);
    const next = rows[y]?.[x];
    if (!next) return true;
    if (next.matches("td *")) {
      for (const cell of grid.querySelectorAll("td button")) cell.tabIndex = -1;
      next.tabIndex = 0;
    }
    next.focus();
    return true;
  }

  around(message) {
    this.notice = message.notice;
    this.earlier = message.earlier;
    this.takeMarks(message.marks);
    this.showBadge(message.device);
    this.formats.replaceChildren(
      ...message.formats.map(([name, title]) => {
        const made = make("button", "mx-key", title);
        made.type = "button";
        made.addEventListener("click", () => this.say({ t: "export", format: name }));
        return made;
      }),
    );
    this.asking = message.question;
    this.put(this.preflight, message.preflight);
    this.drawBars();
    this.link = message.link;
    this.writeAddress();
  }

  writeAddress() {
    if (!document.body.dataset.voila || !this.link) return;
    const query = new URLSearchParams(this.link);
    if (this.link.at) query.set("at", `${this.at[0] + 1}.${this.at[1] + 1}`);
    if (BY_MESSAGE.has(this.tab)) query.set("tab", this.tab);
    if (this.talking) query.set("layout", "talk");
    const text = query.toString();
    const url = text ? `${location.pathname}?${text}` : location.pathname;
    if (url !== location.pathname + location.search) history.replaceState(history.state, "", url);
  }

  // -- moving --------------------------------------------------------------------------------------

  key_of(stop) {
    return `${stop[0]}:${stop[1]}`;
  }

  // Go to a stop; a cell beyond the last means the end of the operation.
  go(stop, { report = true } = {}) {
    const last = this.ghost ? this.ops : this.ops - 1;
    const op = Math.min(Math.max(stop[0], -1), last);
    const n = op < 0 ? 1 : this.cells.get(op);
    const target = n === undefined ? [op, stop[1]] : [op, op < 0 ? 0 : Math.min(Math.max(stop[1], 0), n - 1)];
    if (!this.frames.has(this.key_of(target))) {
      if (this.session.state === "gone") {
        this.tell("That step was not drawn before the session was lost. A reload has it.", "error");
        return;
      }
      this.wanted = target;
      this.root.dataset.state = "loading";
      this.fetch(target);
      return;
    }
    this.wanted = null;
    this.at = target;
    this.schedule();
    if (report) this.report();
    this.prefetch();
  }

  // Ask for the stop a person goes to. Of keys that come faster than pictures only the newest is asked for next.
  fetch(stop) {
    if (this.onTheWay.length >= AT_ONCE || this.onTheWay.some((other) => this.key_of(other) === this.key_of(stop))) return;
    this.onTheWay.push(stop);
    this.want([stop]);
  }

  // Ask for frames. One stop is where a person goes, and is asked for even if it is on a list of later ones.
  want(stops) {
    const open = (key) => !this.frames.has(key) && (stops.length === 1 || !this.asked.has(key));
    const missing = stops.filter((stop) => open(this.key_of(stop)));
    if (!missing.length) return;
    missing.forEach((stop) => this.asked.add(this.key_of(stop)));
    this.say({ t: "want", rev: this.rev, stops: missing });
  }

  // Ask for what a person may want next, before they do.
  prefetch() {
    clearTimeout(this.prefetching);
    this.prefetching = setTimeout(() => {
      const [op, cell] = this.at;
      const last = this.ghost ? this.ops : this.ops - 1;
      const n = this.cells.get(op) ?? 1;
      const end = (at) => [at, (this.cells.get(at) ?? END + 1) - 1];
      const inside = Array.from({ length: n }, (_, c) => [op, c]).sort((a, b) => Math.abs(a[1] - cell) - Math.abs(b[1] - cell));
      // Where one key leads, then where two do, then the rest of what is open.
      const stops = [end(op + 1), end(op - 1), ...inside.slice(0, 3), [op + 1, 0], end(op + 2), end(op - 2), ...inside.slice(3)];
      this.want(stops.filter(([at]) => at >= -1 && at <= last).slice(0, AHEAD));
    }, 30);
  }

  // Steps of an operation; one that was never seen may have any number.
  cellsOf(op) {
    return op < 0 ? 1 : (this.cells.get(op) ?? END + 1);
  }

  // Keys count from where the last one leads, drawn or still on its way.
  byOp(d) {
    const [op, cell] = this.wanted ?? this.at;
    const n = this.cellsOf(op);
    if (d > 0) this.go(cell < n - 1 ? [op, n - 1] : [op + 1, END]);
    else this.go([op - 1, END]);
  }

  byCell(d) {
    const [op, cell] = this.wanted ?? this.at;
    const n = this.cellsOf(op);
    if (d > 0) this.go(cell < n - 1 ? [op, cell + 1] : [op + 1, 0]);
    else this.go(cell > 0 ? [op, cell - 1] : [op - 1, END]);
  }

  // Python hears the cursor at once, then at most ten times a second, and when it rests.
  report() {
    if (this.reporting) return;
    this.tellPlace();
    this.reporting = setTimeout(() => {
      this.reporting = null;
      this.tellPlace();
    }, 100);
  }

  tellPlace() {
    const now = this.key_of(this.at);
    if (now === this.reported) return;
    this.reported = now;
    this.say({ t: "at", rev: this.rev, op: this.at[0], cell: this.at[1] });
    this.writeAddress();
  }

  toggle() {
    if (this.playing) this.pause();
    else this.play(PLAY_STEP / this.speed);
  }

  setSpeed(speed) {
    this.speed = speed;
    this.root.dataset.speed = String(speed);
    this.speedButton.textContent = `${{ 0.25: "¼", 0.5: "½" }[speed] ?? speed}×`;
    this.speedButton.setAttribute("aria-label", `speed of play, ${speed} times`);
    if (this.playing && !this.until) this.play(PLAY_STEP / speed);
  }

  // Play until the end, a refusal, a violation, or the stop `until`.
  play(every, until = null) {
    this.pause();
    this.until = until;
    this.playButton.textContent = "❚❚";
    this.playButton.setAttribute("aria-label", "pause");
    this.root.dataset.playing = "yes";
    const from = this.key_of(this.at);
    this.playing = setInterval(() => {
      if (this.wanted) return undefined; // still on its way
      const before = this.key_of(this.at);
      if (until && before === this.key_of(until)) return this.pause();
      // A stop that was still on its way, or whose mark came later, holds here.
      if (!until && before !== from && this.holds()) return this.pause();
      this.byCell(1);
      if (this.wanted) return undefined;
      if (this.key_of(this.at) === before || (!until && this.holds())) this.pause();
      return undefined;
    }, every);
  }

  pause() {
    clearInterval(this.playing);
    this.playing = null;
    this.until = null;
    this.root.dataset.playing = "no";
    this.playButton.textContent = "▶";
    this.playButton.setAttribute("aria-label", "play");
  }

  // A key during a short motion finishes it and acts.
  finish() {
    if (!this.until) return;
    const until = this.until;
    this.pause();
    this.go(until);
  }

  answer(n) {
    if (this.asking && this.say({ t: "answer", n })) this.asking = false;
  }

  // -- drawing -------------------------------------------------------------------------------------

  schedule() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = null;
      this.draw();
    });
  }

  piece(frame, name) {
    const digest = frame.p[name];
    return digest === undefined ? undefined : this.pieces.get(digest);
  }

  put(host, tree) {
    if (tree === undefined) host.replaceChildren();
    else host.replaceChildren(build(tree));
  }

  // Put a tree unless it is the one already there. Focus inside survives: on the stop where we are it goes with us,
  // elsewhere it stays on what it points at.
  show(host, frame, name) {
    const digest = frame.p[name];
    if (host.dataset.digest === (digest ?? "none")) return;
    host.dataset.digest = digest ?? "none";
    const held = host.contains(document.activeElement) ? document.activeElement : null;
    const here = held?.matches(".is-now, .is-current");
    const again = held && [held.dataset.op, held.dataset.cell, held.dataset.slot, held.dataset.term];
    this.put(host, this.piece(frame, name));
    if (again) {
      const same = [...host.querySelectorAll("[data-op],[data-slot],[data-term]")].find(
        (e) => e.dataset.op === again[0] && e.dataset.cell === again[1] && e.dataset.slot === again[2] && e.dataset.term === again[3],
      );
      const now = host.querySelector(".tl-cell.is-now, .is-current");
      const next = (here ? now : same) ?? now;
      if (next) next.focus({ preventScroll: true });
      else this.focus(); // what it was on is gone: the keys go on working
    }
  }

  draw() {
    const [op, cell] = this.at;
    const frame = this.frames.get(this.key_of(this.at));
    if (!frame) return;
    const asking = frame.p.question !== undefined && this.asking;
    this.root.dataset.question = asking ? "open" : "no";
    this.frameBox().dataset.question = this.root.dataset.question;
    this.show(this.mapHead, frame, "head");
    this.show(this.timeBody, frame, "timeline");
    this.show(this.rail, frame, "rail");
    this.drawMarks();
    this.show(this.because, frame, "because");
    this.show(this.slide, frame, "slide");
    this.show(this.caption, frame, "caption");
    this.wordsOf = frame;
    if (this.carded && !this.carded.isConnected) this.hideCard();
    this.figure.draw(frame.p.map, this.piece(frame, "map"));
    const { windows, line, parts } = this.piece(frame, "map");
    Object.assign(this, { windows, line, parts });
    if (asking) {
      this.show(this.question, frame, "question");
    } else {
      this.drawTab(frame);
    }
    this.scrub.value = String(op);
    this.mapBody.setAttribute("aria-label", frame.s);
    this.live.textContent = frame.s;
    this.root.dataset.op = String(op);
    this.root.dataset.cell = String(cell);
    this.root.dataset.rev = String(this.rev);
    this.root.dataset.pen = "sketch";
    if (!this.wanted) this.root.dataset.state = "ready";
    this.wait.remove();
    this.scrollTimeline();
    if (!this.started) (globalThis.requestIdleCallback ?? setTimeout)(() => this.start(), { timeout: 1000 });
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.settle(), SETTLE_AFTER);
  }

  // At rest plotly draws what was sketched.
  async settle() {
    if (!this.plotly) return;
    await this.figure.settle(this.plotly);
    if (!this.arraysHost.hidden && this.tab === "handoff") await this.arrays.settle(this.plotly);
    if (this.tab === OVER_TIME) await this.overTime.settle(this.plotly);
    this.root.dataset.pen = this.figure.host.dataset.pen;
  }

  drawTab(frame) {
    if (this.tab === OVER_TIME) this.overTime.point_at(this.at[0]);
    if (BY_MESSAGE.has(this.tab)) return;
    this.show(this.tabNote, frame, `note-${this.tab}`);
    if (this.tab === "table") {
      this.show(this.panels.table, frame, "table");
      return;
    }
    this.show(this.strip, frame, "strip");
    if (this.tab === "guards") {
      this.show(this.panels.guards, frame, "guards");
      return;
    }
    this.show(this.fields, frame, "fields");
    this.drawOnlyChanges();
    this.show(this.ledger, frame, "ledger");
    const spec = this.piece(frame, "arrays");
    this.arraysHost.hidden = spec === undefined;
    if (spec) this.arrays.draw(frame.p.arrays, spec);
  }

  showOnlyChanges() {
    this.root.dataset.only = this.root.dataset.only === "changes" ? "all" : "changes";
    this.onlyKey.setAttribute("aria-pressed", String(this.root.dataset.only === "changes"));
    this.schedule();
  }

  // Rows that this step does not change are hidden by the stylesheet; a table without any row says so.
  drawOnlyChanges() {
    const table = this.fields.querySelector(".fields:not(.effects)");
    const changed = table?.querySelector("tr.is-changed");
    this.unchanged.hidden = this.root.dataset.only !== "changes" || !table || changed !== null;
  }

  scrollTimeline() {
    const now = this.timeBody.querySelector(".tl-cell.is-now, .tl-node.is-current");
    const line = this.timeBody.querySelector(".tl-line");
    const track = this.timeBody.querySelector(".tl-track");
    if (track) track.classList.toggle("is-tight", track.clientWidth / track.children.length < 56);
    if (now && line && line.scrollWidth > line.clientWidth) {
      line.scrollLeft = now.offsetLeft - line.clientWidth / 2;
    }
  }

  choose(name) {
    this.tab = name;
    this.root.dataset.tab = name;
    for (const tab of this.tabs.querySelectorAll(".mx-tab")) {
      tab.setAttribute("aria-selected", String(tab.dataset.tab === name));
    }
    for (const [key, panel] of Object.entries(this.panels)) panel.hidden = key !== name;
    this.strip.hidden = name === "table" || BY_MESSAGE.has(name);
    this.tabNote.hidden = BY_MESSAGE.has(name);
    this.onlyKey.hidden = name !== "handoff";
    this.frameBox().dataset.tab = name;
    if (this.greeted) {
      this.say({ t: "tab", name });
      this.writeAddress();
    }
    if (name === "table" && !this.frames.get(this.key_of(this.at))?.p.table) {
      this.forgetFrames(); // those that come from now on have the slots
      this.go(this.at, { report: false });
    }
    this.schedule();
  }

  drawBars() {
    const bars = [];
    const bar = (text, cls, actions, notice = {}) => {
      const made = make("div", `mx-bar ${cls}`);
      made.setAttribute("role", cls === "is-error" || cls === "is-lost" ? "alert" : "status");
      made.append(make("span", "", text));
      for (const [label, action] of actions) {
        const button = make("button", "mx-key", label);
        button.type = "button";
        button.addEventListener("click", action);
        made.append(button);
      }
      if (notice.table?.length) made.append(this.linesTable(notice));
      else if (notice.detail?.length) {
        const more = make("details");
        more.append(make("summary", "", notice.heading));
        const list = make("ul");
        for (const line of notice.detail) list.append(make("li", "", line));
        more.append(list);
        made.append(more);
      }
      bars.push(made);
    };
    if (this.session.state !== "alive") bar(...this.sessionWords());
    if (this.reading) bar(this.reading, "is-info", []);
    if (this.notice) {
      const actions = [];
      if (this.notice.go) actions.push([this.notice.go[0], () => this.go([this.notice.go[1], END])]);
      if (this.earlier && this.notice.back) actions.push([this.earlier, () => this.say({ t: "earlier" })]);
      actions.push(["Dismiss", () => this.dismiss()]);
      bar(this.notice.text, this.notice.kind === "error" ? "is-error" : "is-info", actions, this.notice);
    }
    this.bars.replaceChildren(...bars);
  }

  // What a person is told of a session that does not answer, and the ways out.
  sessionWords() {
    const served = document.body.dataset.voila;
    const ways = served ? [["Reload at this step", () => this.reload()]] : [];
    if (this.reloading) return ["The server does not answer yet. The page reloads at this step as soon as it does.", "is-lost", []];
    switch (this.session.state) {
      case "busy":
        return ["The kernel is still at work on the last change. Steps that are drawn work meanwhile.", "is-busy", ways];
      case "cut":
        return [
          "The connection is down and is tried again. What is drawn can be stepped through; changes are sent when it is back.",
          "is-lost",
          [["Try now", () => this.session.retry()], ...ways],
        ];
      default: {
        const short = this.asking || Object.keys(this.link ?? {}).length;
        const again = short ? "" : " This run is too long for an address: open its log again afterwards.";
        const way = served ? `changes need a reload.${again}` : "for changes run the cell again.";
        return [`Session lost. The picture still works; ${way}`, "is-lost", ways];
      }
    }
  }

  // What the lines of a log became: a table, and what it counts.
  linesTable(notice) {
    const more = make("details", "mx-lines");
    more.append(make("summary", "", "What the lines became"));
    const box = make("div");
    box.tabIndex = 0;
    const table = make("table");
    const head = make("tr");
    for (const word of ["line", "became", "what, or why"]) head.append(make("th", "", word));
    table.append(make("thead"));
    table.tHead.append(head);
    const body = make("tbody");
    for (const [line, became, why] of notice.table) {
      const row = make("tr", `is-${became.split(" ")[0]}`);
      for (const word of [line, became, why]) row.append(make("td", "", word));
      body.append(row);
    }
    table.append(body);
    box.append(make("p", "", notice.table_note), table);
    if (notice.detail.length) {
      const list = make("ul");
      for (const line of notice.detail) list.append(make("li", "", line));
      box.append(make("h3", "", notice.heading), list);
    }
    more.append(box);
    return more;
  }

  dismiss() {
    this.notice = null;
    this.drawBars();
    this.say({ t: "dismiss" });
  }

  // -- hands ---------------------------------------------------------------------------------------

  click(event) {
    const button = event.target.closest("button");
    if (!button || !this.root.contains(button)) return;
    const note = event.target.closest("[data-note]");
    if (button.dataset.key) this.handle({ key: button.dataset.key, target: button });
    else if (note) this.go(note.dataset.note.split(":").map(Number));
    else if (button.dataset.answer) this.answer(Number(button.dataset.answer));
    else if (button.dataset.slot) this.say({ t: "slot", key: button.dataset.slot });
    else if (button.dataset.matrix) this.say({ t: "matrix", key: button.dataset.matrix });
    else if (button.dataset.era) this.say({ t: "era", key: button.dataset.era });
    else if (button.dataset.earlier !== undefined) this.say({ t: "earlier" });
    else if (button.dataset.pick) this.say({ t: "pick", key: button.dataset.pick });
    else if (button.dataset.test) this.say({ t: "test", key: button.dataset.test });
    else if (button.dataset.space) this.say({ t: "space", key: button.dataset.space });
    else if (button.dataset.gpu) this.say({ t: "gpu", key: button.dataset.gpu });
    else if (button.dataset.why) this.askWhy(button.dataset.why, button.dataset.all !== undefined);
    else if (button.dataset.claim) {
      this.showThread(false);
      this.say({ t: "claim", key: button.dataset.claim });
    } else if (button.dataset.term) this.showCard(button);
    else if (button.dataset.story) this.say({ t: "story", key: button.dataset.story });
    else if (button.dataset.op !== undefined) {
      this.go([Number(button.dataset.op), button.dataset.cell === undefined ? END : Number(button.dataset.cell)]);
    } else if (button.dataset.cell !== undefined) this.go([this.at[0], Number(button.dataset.cell)]);
  }

  gfnAt(clientX) {
    const box = this.figure.plot.getBoundingClientRect();
    const left = this.figure.size ? this.figure.size.width - this.plotWidth() - 20 : 0;
    const x = (clientX - box.left) / zoomOf(this.figure.plot) - left;
    const window = (this.windows ?? []).find(([x0, x1]) => x >= x0 && x <= x1);
    if (!window) return null;
    const [x0, x1, first, end] = window;
    return { gfn: Math.floor(first + ((x - x0) * (end - first)) / (x1 - x0)), shown: [first, end], perPixel: (end - first) / (x1 - x0) };
  }

  plotWidth() {
    return this.windows?.length ? this.windows[this.windows.length - 1][1] : 0;
  }

  // Where a pointer is on the line of all memory: its place along the line, and the gfn there; null off the line.
  onLine(event, sticky = false) {
    if (!this.line || !this.parts?.length || this.asking) return null;
    const box = this.figure.plot.getBoundingClientRect();
    const zoom = zoomOf(this.figure.plot);
    const y = (event.clientY - box.top) / zoom;
    if (!sticky && (y < this.line.top - 4 || y > this.line.bottom + 4)) return null;
    const first = this.parts[0][0];
    const x = Math.max(first, Math.min((event.clientX - box.left) / zoom - this.line.left, this.parts[this.parts.length - 1][1]));
    const [x0, x1, from, to] = this.parts.find((part) => x <= part[1]);
    return { x: x + this.line.left, gfn: Math.round(from + ((x - x0) * (to - from)) / (x1 - x0)) };
  }

  drawBrush(a, b) {
    this.brushBox ??= this.mapBody.appendChild(make("div", "mx-brush"));
    this.brushBox.hidden = !a;
    if (!a) return;
    const { top, bottom } = this.line;
    this.brushBox.style.left = `${Math.min(a.x, b.x)}px`;
    this.brushBox.style.width = `${Math.abs(b.x - a.x)}px`;
    this.brushBox.style.top = `${top - 4}px`;
    this.brushBox.style.height = `${bottom - top + 8}px`;
  }

  // Move what the detail shows along the memory, by half of it.
  panBy(direction) {
    const window = this.windows?.[0];
    if (!window) return;
    const shown = [window[2], this.windows[this.windows.length - 1][3]];
    this.say({ t: "pan", by: direction * Math.max(Math.round((shown[1] - shown[0]) / 2), 1), shown });
  }

  wheel(event) {
    const at = this.gfnAt(event.clientX);
    if (!at || this.asking) return;
    event.preventDefault();
    clearTimeout(this.zooming);
    this.zoomFactor = (this.zoomFactor ?? 1) * (event.deltaY > 0 ? 1.25 : 0.8);
    this.zooming = setTimeout(() => {
      this.say({ t: "zoom", gfn: at.gfn, factor: this.zoomFactor, shown: at.shown });
      this.zoomFactor = 1;
    }, 40);
  }

  zoomBy(factor) {
    const window = this.windows?.[0];
    if (!window) return;
    const gfn = Math.floor((window[2] + window[3]) / 2);
    this.say({ t: "zoom", gfn, factor, shown: [window[2], window[3]] });
  }

  drag() {
    let start = null;
    const on = (target, name, handler) => target.addEventListener(name, handler, { signal: this.signal });
    let brushed = null;
    on(this.mapBody, "pointerdown", (event) => {
      this.figure.dragged = false;
      brushed = this.onLine(event);
      start = brushed ? null : this.gfnAt(event.clientX) && event.clientX;
    });
    on(window, "pointermove", (event) => {
      if (brushed) this.drawBrush(brushed, this.onLine(event, true));
    });
    on(window, "pointerup", (event) => {
      if (brushed) {
        const [from, to] = [brushed, this.onLine(event, true)];
        brushed = null;
        this.drawBrush(null);
        this.figure.dragged = Boolean(to) && Math.abs(to.x - from.x) > 6;
        if (this.figure.dragged) this.say({ t: "brush", first: Math.min(from.gfn, to.gfn), end: Math.max(from.gfn, to.gfn) });
        return;
      }
      if (start === null || start === undefined) return;
      const moved = (event.clientX - start) / zoomOf(this.figure.plot);
      const at = this.gfnAt(start);
      start = null;
      this.figure.dragged = Math.abs(moved) > 6;
      if (at && Math.abs(moved) > 6) this.say({ t: "pan", by: Math.round(-moved * at.perPixel), shown: at.shown });
    });
  }

  key(event) {
    const target = event.target;
    const field = target.closest?.("input:not([type=range]), textarea, select, [contenteditable]");
    const inside = this.frameBox().contains(target);
    const page = document.body.dataset.voila && (target === document.body || target === document.documentElement);
    if ((!inside && !page) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (field) {
      if (event.key === "Escape") {
        if (field.closest(".mx-sheet")) this.openSheet(null);
        if (field.closest(".mx-goto")) field.value = this.placeBefore ?? ""; // so that leaving goes nowhere
        field.blur();
        this.focus();
        event.stopPropagation();
      } else if (event.key === "Enter" && field.closest(".mx-goto")) {
        this.find("");
      } else if (event.key === "Enter" && field.tagName === "INPUT" && field.closest(".mx-compose")) {
        event.preventDefault();
        const fields = [...this.frameBox().querySelectorAll(".mx-fields input")].filter((e) => e.offsetParent);
        this.say({ t: "apply", fields: fields.map((e) => e.value) });
      } else if (!inside) return;
      return;
    }
    this.finish();
    if (this.handle(event)) {
      event.preventDefault();
      event.stopPropagation();
    }
  }

  handle(event) {
    // The stop where we are has nothing to do for Enter or Space: they keep the meaning they have elsewhere.
    const onButton = event.target.closest?.("button:not(.is-now), a, summary, select");
    if ((event.key === "Enter" || event.key === " ") && onButton) return false;
    if (this.inGrid(event)) return true;
    switch (event.key) {
      case "ArrowRight":
        if (event.shiftKey) this.byCell(1);
        else this.byOp(1);
        return true;
      case "ArrowLeft":
        if (event.shiftKey) this.byCell(-1);
        else this.byOp(-1);
        return true;
      case "Home":
        this.go([-1, 0]);
        return true;
      case "End":
        this.go([this.ops - 1, END]);
        return true;
      case " ":
        this.toggle();
        return true;
      case "Enter":
        this.tellPlace();
        this.say({ t: "apply" });
        return true;
      case "Escape":
        this.hideCard();
        if (this.talking && [this.help, this.thread, this.why, ...Object.values(this.sheets)].every((each) => each.hidden)) this.layOut(false);
        this.thread.hidden = true;
        this.why.hidden = true;
        this.showHelp(false);
        this.openSheet(null);
        this.root.dataset.drawer = "none";
        this.frameBox().dataset.drawer = "none";
        return true;
      case "w":
        if (!this.asking) this.askWhy(event.target.dataset?.why ?? "");
        return true;
      case "l":
        this.showThread(this.thread.hidden);
        return true;
      case "?":
        this.showHelp(this.help.hidden);
        return true;
      case "+":
        this.zoomBy(0.5);
        return true;
      case "-":
        this.zoomBy(2);
        return true;
      case "<":
      case ">":
        this.panBy(event.key === ">" ? 1 : -1);
        return true;
      case "/":
      case "g":
        this.frameBox().querySelector(".mx-goto input")?.focus();
        return true;
      case "f":
        this.say({ t: "fit" });
        return true;
      case "t":
        this.nextTheme();
        return true;
      case "p":
        this.layOut(!this.talking);
        return true;
      case "x":
        this.otherHalf();
        return true;
      case "j":
        if (this.tab === "kernels") this.panels.kernels.querySelector(".first-difference")?.click();
        return true;
      case "PageDown":
      case "PageUp":
        this.say({ t: "beat", by: event.key === "PageDown" ? 1 : -1 });
        return true;
      case "o":
        if (this.tab === "handoff") this.showOnlyChanges();
        return true;
      case "n":
        this.openNotes();
        return true;
      case "!":
        this.say({ t: "first" });
        return true;
      case "[":
      case "]": {
        const at = SPEEDS.indexOf(this.speed) + (event.key === "]" ? 1 : -1);
        this.setSpeed(SPEEDS[Math.min(Math.max(at, 0), SPEEDS.length - 1)]);
        return true;
      }
      case "k":
      case "v":
      case "i":
      case "u":
        this.tellPlace();
        this.say({ t: "key", key: event.key });
        return true;
      case "b":
      case "c":
        this.drawer(event.key === "b" ? "because" : "compose");
        return true;
      default:
        if (/^[1-9]$/.test(event.key)) return this.digit(Number(event.key));
        return false;
    }
  }

  drawer(name) {
    const box = this.frameBox();
    const pane = box.querySelector(name === "compose" ? ".mx-compose" : ".mx-rail");
    const here = pane && getComputedStyle(pane).display !== "none";
    if (here && box.dataset.drawer !== name) {
      (pane.querySelector("input, a, button") ?? pane).focus();
      return;
    }
    box.dataset.drawer = box.dataset.drawer === name ? "none" : name;
  }

  digit(n) {
    if (this.asking && n <= 3) this.answer(n);
    else if (TABS[n - 1]) this.choose(TABS[n - 1][0]);
    return true;
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
