// What lies on the timeline besides operations: notes and marks.

const LONGEST_NOTE = 200;

const Notes = (Base) =>
  class extends Base {
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
        const label = words.join(", ");
        if (node.getAttribute("aria-label") !== label) node.setAttribute("aria-label", label);
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
  };
