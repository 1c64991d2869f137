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

// Make an element that was built from one tree what another one says, and return it, or what takes its place. What both
// have stays where it is: who steps along a line of sixty operations has a few of them built anew, and laid out.
function renew(element, before, after) {
  const alike = (a, b) => Array.isArray(a) && Array.isArray(b) && a[0] === b[0] && JSON.stringify(a[1]) === JSON.stringify(b[1]);
  if (!alike(before, after)) return build(after);
  const old = before.slice(2).map((tree, n) => ({ tree, node: element.childNodes[n] }));
  const kept = new Map(old.map((child) => [JSON.stringify(child.tree), child]));
  const same = after.slice(2).map((tree) => {
    const key = JSON.stringify(tree);
    const found = kept.get(key);
    kept.delete(key);
    return found;
  });
  const stays = new Set(same);
  const nodes = after.slice(2).map((tree, n) => {
    if (same[n]) return same[n].node;
    const there = old[n];
    return there && !stays.has(there) && Array.isArray(tree) ? renew(there.node, there.tree, tree) : build(tree);
  });
  const wanted = new Set(nodes);
  for (const { node } of old) if (!wanted.has(node)) node.remove();
  arrange(element, nodes);
  return element;
}

// Put nodes into an element in their order, and touch none that is in its place: what is moved loses the focus.
function arrange(element, nodes) {
  let next = element.firstChild;
  for (const node of nodes) {
    if (node === next) next = next.nextSibling;
    else element.insertBefore(node, next);
  }
}

function make(tag, cls, text) {
  const element = document.createElement(tag);
  if (cls) element.className = cls;
  if (text !== undefined) element.textContent = text;
  return element;
}
