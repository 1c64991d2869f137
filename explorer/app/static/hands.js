// Hands: clicks, keys, the wheel and what is dragged.

const OF_DROP_DOWNS = new Set(["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Enter", " ", "Tab", "Home", "End", "Escape"]);
const SHUT = CSS.supports("selector(:open)") ? "select:not(:open)" : null;

const Hands = (Base) =>
  class extends Base {
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
      else if (button.dataset.unfold !== undefined) {
        button.setAttribute("aria-expanded", String(button.closest(".ladder").classList.toggle("is-open")));
      } else if (button.dataset.story) this.say({ t: "story", key: button.dataset.story });
      else if (button.dataset.op !== undefined) {
        this.go([Number(button.dataset.op), button.dataset.cell === undefined ? END : Number(button.dataset.cell)]);
      } else if (button.dataset.cell !== undefined) this.go([this.at[0], Number(button.dataset.cell)]);
    }

    key(event) {
      const target = event.target;
      const field = this.leavesKey(event) ? null : target.closest?.("input:not([type=range]), textarea, select, [contenteditable]");
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
      this.released = !event.repeat;
      if (this.handle(event)) {
        event.preventDefault();
        event.stopPropagation();
      }
    }

    // A drop-down of the top that is shut needs the keys it is used with, not letters and digits: those are the page's.
    leavesKey({ target, key }) {
      return SHUT !== null && target.matches?.(`.mx-top ${SHUT}`) && !OF_DROP_DOWNS.has(key);
    }

    handle(event) {
      if (!this.help.hidden && event.key !== "Escape" && event.key !== "?") return false; // it is read, and scrolled
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
          this.say({ t: "apply" });
          return true;
        case "Escape":
          this.hideCard();
          if (this.talking && [this.help, this.thread, this.why, ...Object.values(this.sheets)].every((each) => each.hidden)) this.layOut(false);
          this.thread.hidden = true;
          this.why.hidden = true;
          this.showHelp(false);
          this.openSheet(null);
          if (this.rail === event.target) this.focus(); // it may be a drawer, which shuts
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

    digit(n) {
      if (this.asking && n <= 3) this.answer(n);
      else if (TABS[n - 1]) this.choose(TABS[n - 1][0]);
      return true;
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
  };
