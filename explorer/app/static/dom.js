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
  dress(element, attrs);
  for (const child of children) element.appendChild(build(child));
  return element;
}

// Give an element the attributes that a tree may ask for.
function dress(element, attrs) {
  for (const [name, value] of Object.entries(attrs)) {
    if (name === "vars") {
      for (const [key, v] of Object.entries(value)) if (key.startsWith("--")) element.style.setProperty(key, String(v));
    } else if (name === "href") {
      if (/^https:\/\//.test(value)) element.setAttribute(name, value);
    } else if (ATTRIBUTES.has(name) || name.startsWith("data-") || name.startsWith("aria-")) {
      const text = value === true ? "" : String(value);
      if (element.getAttribute(name) !== text) element.setAttribute(name, text);
    }
  }
}

// Give an element the attributes of another tree, and no others.
function redress(element, before, after) {
  if (same(before, after)) return;
  const stays = (name) => name === "style" || (name !== "href" && Object.hasOwn(after, name)); // a link is judged anew
  for (const { name } of [...element.attributes]) if (!stays(name)) element.removeAttribute(name);
  for (const key of Object.keys(before.vars ?? {})) if (!Object.hasOwn(after.vars ?? {}, key)) element.style.removeProperty(key);
  dress(element, after);
}

const TEXTS = new WeakMap();

// The JSON of a tree, by which trees are compared; it is asked for again at the next stop. A string is quoted, or text
// that looks like a tree would be taken for it.
function textOf(tree) {
  if (typeof tree === "string") return JSON.stringify(tree);
  let text = TEXTS.get(tree);
  if (text === undefined) TEXTS.set(tree, (text = JSON.stringify(tree)));
  return text;
}

function same(one, other) {
  return textOf(one) === textOf(other);
}

// What a tree is to the eye of who looks for one like it: its tag and the first word of its class.
function kindOf(tree) {
  return typeof tree === "string" ? "" : `${tree[0]} ${(tree[1].class ?? "").split(" ", 1)[0]}`;
}

// Make a node that was built from one tree what another one says, and return it, or what takes its place. What both
// have stays where it is, and what is alike is changed, not built anew: who holds a key down waits for neither.
function renew(node, before, after) {
  if (kindOf(before) !== kindOf(after)) return build(after);
  if (typeof after === "string") {
    if (before !== after) node.data = after;
    return node;
  }
  redress(node, before[1], after[1]);
  const old = before.slice(2).map((tree, n) => ({ tree, node: node.childNodes[n] }));
  const there = new Map(old.map((child) => [textOf(child.tree), child]));
  const children = after.slice(2);
  const kept = children.map((tree) => {
    const child = there.get(textOf(tree));
    there.delete(textOf(tree));
    return child;
  });
  const stays = new Set(kept);
  const free = new Map();
  for (const child of old) {
    if (stays.has(child)) continue;
    const kind = kindOf(child.tree);
    if (!free.has(kind)) free.set(kind, []);
    free.get(kind).push(child);
  }
  const nodes = children.map((tree, n) => {
    if (kept[n]) return kept[n].node;
    const like = free.get(kindOf(tree))?.shift();
    return like ? renew(like.node, like.tree, tree) : build(tree);
  });
  const wanted = new Set(nodes);
  for (const child of old) if (!wanted.has(child.node)) child.node.remove();
  arrange(node, nodes);
  return node;
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
