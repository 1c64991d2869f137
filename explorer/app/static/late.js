// Tabs that Python draws while they are open: Kernels, KVMGT, Compare, Over time, Calls.

const LateTabs = (Base) =>
  class extends Base {
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
  };
