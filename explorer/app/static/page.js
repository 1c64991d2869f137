// The page: its fixed places, its tabs, its size and theme.

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

const Page = (Base) =>
  class extends Base {
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
      this.scrub.addEventListener("input", () => {
        this.released = false;
        this.go([Number(this.scrub.value), END]);
      });
      this.scrub.addEventListener("change", () => this.release());
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
      if (this.greeted) this.measure(); // the map may have been away while the layout changed
      this.schedule();
    }

    // What lies around the stage are widgets, which cannot say what they are to a screen reader.
    nameParts() {
      for (const [selector, label] of PARTS) {
        const part = this.frameBox().querySelector(selector);
        part?.setAttribute("role", "region");
        part?.setAttribute("aria-label", label);
      }
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

    sizes() {
      const width = Math.round(this.frameBox().getBoundingClientRect().width / zoomOf(this.frameBox())) || 1720;
      // A tab may have taken the map's room: it returns as wide as it was.
      if (this.mapBody.offsetWidth) this.mapSize = [this.mapBody.offsetWidth, this.mapBody.offsetHeight];
      const [map, height] = this.mapSize ?? [0, 0];
      return { width, map, talk: this.talking ? height || TALK.height : 0, theme: this.theme() };
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

    drawer(name) {
      const box = this.frameBox();
      const pane = box.querySelector(name === "compose" ? ".mx-compose" : ".mx-rail");
      const here = pane && getComputedStyle(pane).display !== "none";
      if (here && box.dataset.drawer !== name) {
        (pane.querySelector("input, a, button") ?? pane).focus();
        return;
      }
      box.dataset.drawer = box.dataset.drawer === name ? "none" : name;
      if (name !== "because") return;
      this.rail.scrollTop = 0;
      this.rail.tabIndex = -1;
      if (box.dataset.drawer === name) this.rail.focus({ preventScroll: true });
      else this.focus();
    }

    focus() {
      this.root.tabIndex = -1;
      if (this.talking) return this.captionHost.focus({ preventScroll: true });
      this.timeBody.querySelector(".is-current, .tl-cell.is-now")?.focus({ preventScroll: true });
      return undefined;
    }
  };
