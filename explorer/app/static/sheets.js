// What opens over the page: keys and words, the thread, why a value is what it is, other sheets.

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

const Sheets = (Base) =>
  class extends Base {
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

    showHelp(on) {
      this.layOutWords();
      this.help.hidden = !on;
      if (on) this.help.querySelector("button").focus({ preventScroll: true });
      else this.focus();
    }

    // The list of words is long: it is built when somebody asks for it, or for the card of one of them.
    layOutWords() {
      if (this.wordsOf) this.show(this.words, this.wordsOf, "words");
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

    // The claims of the thread come when they are first asked for.
    showThread(on) {
      this.thread.hidden = !on;
      if (!on) return this.focus();
      if (!this.thread.childElementCount) this.say({ t: "thread" });
      this.thread.querySelector("button")?.focus();
      return undefined;
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
  };
