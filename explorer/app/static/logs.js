// What comes from outside: pasted, dropped or opened; and what is typed into the go-to box.

const PIECE = 1 << 20;
const SETTLE_AFTER = 140;

const Logs = (Base) =>
  class extends Base {
    // A log is sent in pieces, so that neither its size nor the server's longest message matters.
    buildImporter() {
      const paste = make("textarea", "mx-paste");
      paste.placeholder = "Paste a trace or one failing line\nanywhere on the page";
      paste.setAttribute("aria-label", "a trace, or one failing line");
      paste.title = "strace, QEMU’s trace, ftrace, trace-cmd, perf, info mtree -f, JSON lines";
      paste.spellcheck = false;
      const file = make("input");
      file.type = "file";
      file.hidden = true;
      const button = (text, action) => {
        const made = make("button", "mx-key", text);
        made.type = "button";
        made.addEventListener("click", action);
        return made;
      };
      const row = make("div", "mx-import-row");
      row.append(
        button("Replay", () => {
          paste.scrollTop = 0;
          if (paste.value.trim()) this.upload(new Blob([paste.value]), "pasted text");
          else this.tell("Nothing is pasted yet.", "error");
        }),
        button("Open a file", () => file.click()),
        file,
      );
      file.addEventListener("change", () => {
        if (file.files[0]) this.upload(file.files[0], file.files[0].name);
        file.value = "";
      });
      this.importer.append(paste, row);
    }

    // What is pasted beside a field or into the box for logs is read at once; other fields keep what is pasted.
    paste(event) {
      const target = event.target;
      const box = target.closest?.(".mx-paste");
      const field = target.closest?.("input:not([type=range]), textarea, select, [contenteditable]");
      const inside = this.frameBox().contains(target) || (document.body.dataset.voila && target === document.body);
      if (!inside || (field && !box)) return;
      const text = event.clipboardData?.getData("text/plain") ?? "";
      const file = event.clipboardData?.files[0];
      if (!text.trim() && !file) return;
      event.preventDefault();
      if (box) box.value = text.length < PIECE ? text : "";
      this.upload(file ?? new Blob([text]), file ? file.name : "pasted text");
    }

    // What is typed into the go-to box is answered below it before Enter goes there.
    find(text) {
      clearTimeout(this.finding);
      this.sought = text.trim();
      if (!this.sought) this.found.hidden = true;
      else this.finding = setTimeout(() => this.say({ t: "find", text }), SETTLE_AFTER);
    }

    takeFound({ text, error }) {
      const field = this.frameBox().querySelector(".mx-goto input");
      if (!text || !this.sought || document.activeElement !== field) return;
      this.found.textContent = text;
      this.found.classList.toggle("is-error", error);
      this.found.hidden = false;
      const frame = this.frameBox().getBoundingClientRect();
      const box = field.getBoundingClientRect();
      this.found.style.right = `${Math.max(frame.right - box.right, 8)}px`;
      this.found.style.top = `${box.bottom - frame.top + 4}px`;
    }

    async upload(blob, name) {
      if (this.reading) {
        this.tell(`${name} was not taken: the log before it is still being read.`, "error");
        return;
      }
      if (this.session.state === "cut" || this.session.state === "gone") {
        this.tell(`${name} cannot be sent now: the connection is down.`, "error");
        return;
      }
      const mega = (n) => `${Math.max(1, Math.round(n / (1 << 20)))} MiB`;
      if (blob.size > this.limit) {
        this.tell(
          `${name} has ${mega(blob.size)}; a page takes logs up to ${mega(this.limit)}. ` +
            "Send a part of it or its .gz, or run: explorer replay FILE",
          "error",
        );
        return;
      }
      this.notice = null;
      this.read(`Reading ${name}, ${mega(blob.size)}`);
      for (let at = 0; at === 0 || at < blob.size; at += PIECE) {
        const piece = await blob.slice(at, at + PIECE).arrayBuffer();
        const taken = new Promise((resolve) => (this.taken = resolve));
        this.say({ t: "upload", name, size: blob.size, at }, [new DataView(piece)]);
        if (at + PIECE < blob.size) await taken;
        if (!this.reading) return;
      }
    }

    // Say what is read, until Python has done with it or the connection breaks; what else Python says does not end it.
    read(words) {
      this.reading = words;
      if (!words) this.taken?.();
      this.drawBars();
    }
  };
