// Bars across the page: what a person is told.

const Bars = (Base) =>
  class extends Base {
    tell(text, kind) {
      this.notice = { text, kind, detail: [] };
      this.drawBars();
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
      this.frameBox().toggleAttribute("data-told", bars.length > 0);
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
      this.notice = this.noticed = null;
      this.drawBars();
      this.say({ t: "dismiss" });
    }
  };
