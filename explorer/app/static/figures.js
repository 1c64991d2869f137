// Figures: sketched at once on a canvas, drawn by plotly when there is time, with words and places of our own.

const FREE_AFTER = 5000;

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

// How much an element is enlarged: boxes on the screen are that much larger than the lengths in its style. It is what
// `fitTalk` gave the page; the browser's own answer, currentCSSZoom, has it lay out the page in the middle of a picture.
function zoomOf(element) {
  if (!("currentCSSZoom" in element)) return 1;
  return Number(element.closest(".mx-frame")?.style.getPropertyValue("--zoom")) || 1;
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

// Dots by the thousand are one brush: a tile of it, four times as large as it is painted.
const TILE = 4;
const brushes = new Map();

function dots(draw, { fgcolor, size, solidity }) {
  const key = [fgcolor, size, solidity].join(" ");
  if (!brushes.has(key)) {
    const tile = make("canvas");
    tile.width = tile.height = size * TILE;
    const pen = tile.getContext("2d");
    const radius = Math.sqrt((solidity * size * size) / Math.PI) * TILE;
    pen.fillStyle = fgcolor;
    pen.fillRect((size * TILE) / 2 - radius, (size * TILE) / 2 - radius, 2 * radius, 2 * radius);
    brushes.set(key, draw.createPattern(tile, "repeat"));
    brushes.get(key).setTransform(new DOMMatrix().scale(1 / TILE));
  }
  return brushes.get(key);
}

function hatch(draw, path, pattern, { width, height }) {
  const { shape, fgcolor, size, solidity } = pattern;
  if (shape === ".") {
    draw.fillStyle = dots(draw, pattern);
    draw.fill(path);
    return;
  }
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
  const draw = canvas.getContext("2d");
  const size = [width, height, scale].join(" ");
  if (canvas.dataset.size !== size) {
    canvas.dataset.size = size;
    canvas.width = width * scale;
    canvas.height = height * scale;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  draw.setTransform(scale, 0, 0, scale, 0, 0);
  draw.clearRect(0, 0, width, height);
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
    if (layout.width !== this.written?.width || layout.height !== this.written?.height) {
      this.written = { width: layout.width, height: layout.height };
      this.host.style.setProperty("--w", `${layout.width}px`);
      this.host.style.setProperty("--h", `${layout.height}px`);
      this.words.setAttribute("width", layout.width);
      this.words.setAttribute("height", layout.height);
    }
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
    const nodes = [];
    const kept = new Map([...svg.children].map((text) => [text.dataset.key, text]));
    if (words) {
      for (let i = 0; i < words.x.length; i += 1) {
        const look = [words.x[i], words.y[i], words.textposition[i], words.textfont.color[i], words.textfont.size[i]];
        const key = [layout.height, ...look, words.text[i]].join(" ");
        if (kept.has(key)) {
          nodes.push(kept.get(key));
          kept.delete(key);
          continue;
        }
        const text = document.createElementNS("http://www.w3.org/2000/svg", "text");
        const bold = words.text[i].startsWith("<b>");
        text.setAttribute("x", words.x[i]);
        text.setAttribute("y", layout.height - words.y[i]);
        text.setAttribute("text-anchor", ANCHOR[words.textposition[i]]);
        text.setAttribute("fill", words.textfont.color[i]);
        text.setAttribute("font-size", words.textfont.size[i]);
        if (bold) text.setAttribute("font-weight", "600");
        text.textContent = bold ? words.text[i].slice(3, -4) : words.text[i];
        text.dataset.key = key;
        nodes.push(text);
      }
    }
    kept.forEach((text) => text.remove());
    arrange(svg, nodes);
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
