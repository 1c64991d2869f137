// Document trees of Python, built from a short list of tags: text is text.

const TAGS = new Set(
  ("div span p b i em strong small code kbd table thead tbody tr th td ul ol li button h2 h3 h4 section " +
    "svg path circle rect line text g dl dt dd a label caption colgroup col details summary").split(" "),
);
const SVG = new Set(["svg", "path", "circle", "rect", "line", "text", "g"]);
const ATTRIBUTES = new Set(
  ("class id title role href colspan rowspan scope type tabindex disabled d viewBox x y x1 x2 y1 y2 width height r cx " +
    "cy transform target rel").split(" "),
);

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
