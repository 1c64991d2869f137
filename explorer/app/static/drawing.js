// Drawing the stop the cursor is at: at most once in a frame of the browser.

const RENEWED = new Set(["timeline", "rail", "strip", "fields", "ledger"]); // much of them is the same at the next stop

const Drawing = (Base) =>
  class extends Base {
    // At once if the browser has painted the last picture, else when it has: waiting for the beginning of a frame would
    // leave it the rest of this one to do nothing in.
    schedule() {
      if (this.drawing) return;
      this.drawing = true;
      const now = () => {
        this.drawing = false;
        this.unpainted = true;
        requestAnimationFrame(() => (this.unpainted = false));
        this.draw();
      };
      if (this.unpainted) requestAnimationFrame(now);
      else queueMicrotask(now); // all of a message is taken by then
    }

    piece(frame, name) {
      const digest = frame.p[name];
      return digest === undefined ? undefined : this.pieces.get(digest);
    }

    put(host, tree) {
      if (tree === undefined) host.replaceChildren();
      else host.replaceChildren(build(tree));
    }

    // Put a tree in the place of another one that is like it.
    renew(host, tree) {
      const there = host.firstChild;
      const now = there && tree ? renew(there, this.trees.get(host), tree) : null;
      if (now === null) this.put(host, tree);
      else if (now !== there) host.replaceChildren(now);
      this.trees.set(host, tree);
    }

    // Put a tree unless it is the one already there. Focus inside survives: on the stop where we are it goes with us,
    // elsewhere it stays on what it points at.
    show(host, frame, name) {
      const digest = frame.p[name];
      if (host.dataset.digest === (digest ?? "none")) return;
      host.dataset.digest = digest ?? "none";
      const held = host.contains(document.activeElement) ? document.activeElement : null;
      const here = held?.matches(".is-now, .is-current");
      const again = held && [held.dataset.op, held.dataset.cell, held.dataset.slot, held.dataset.term];
      if (RENEWED.has(name)) this.renew(host, this.piece(frame, name));
      else this.put(host, this.piece(frame, name));
      if (again) {
        const same = [...host.querySelectorAll("[data-op],[data-slot],[data-term]")].find(
          (e) => e.dataset.op === again[0] && e.dataset.cell === again[1] && e.dataset.slot === again[2] && e.dataset.term === again[3],
        );
        const now = host.querySelector(".tl-cell.is-now, .is-current");
        this.refocus = (here ? now : same) ?? now; // none: what it was on is gone, and the keys go on working
      }
    }

    draw() {
      const [op, cell] = this.at;
      const frame = this.frames.get(this.key_of(this.at));
      if (!frame) return;
      const asking = frame.p.question !== undefined && this.asking;
      this.root.dataset.question = asking ? "open" : "no";
      this.frameBox().dataset.question = this.root.dataset.question;
      this.show(this.mapHead, frame, "head");
      this.show(this.timeBody, frame, "timeline");
      this.told.remove(); // it is put in again among what belongs to the rail's tree
      this.show(this.rail, frame, "rail");
      const another = this.root.dataset.op !== String(op);
      this.drawMarks();
      this.show(this.because, frame, "because");
      this.show(this.slide, frame, "slide");
      this.show(this.caption, frame, "caption");
      this.wordsOf = frame;
      if (this.carded && !this.carded.isConnected) this.hideCard();
      this.figure.draw(frame.p.map, this.piece(frame, "map"));
      const { windows, line, parts } = this.piece(frame, "map");
      Object.assign(this, { windows, line, parts });
      if (asking) {
        this.show(this.question, frame, "question");
      } else {
        this.drawTab(frame);
      }
      this.scrub.value = String(op);
      this.mapBody.setAttribute("aria-label", frame.s);
      this.live.textContent = frame.s;
      this.root.dataset.op = String(op);
      this.root.dataset.cell = String(cell);
      this.root.dataset.rev = String(this.rev);
      this.root.dataset.pen = "sketch";
      if (!this.wanted) this.root.dataset.state = "ready";
      this.wait.remove();
      // What asks the browser where things are comes last, or it would lay out the page in the middle of a picture.
      this.scrollTimeline();
      if (another) this.rail.scrollTop = 0; // another verdict
      if (this.refocus !== undefined) this.giveFocus();
      if (!this.started) (globalThis.requestIdleCallback ?? setTimeout)(() => this.start(), { timeout: 1000 });
      clearTimeout(this.settling);
      this.settling = setTimeout(() => this.settle(), SETTLE_AFTER);
    }

    // At rest plotly draws what was sketched.
    async settle() {
      if (!this.plotly) return;
      await this.figure.settle(this.plotly);
      if (!this.arraysHost.hidden && this.tab === "handoff") await this.arrays.settle(this.plotly);
      if (this.tab === OVER_TIME) await this.overTime.settle(this.plotly);
      this.root.dataset.pen = this.figure.host.dataset.pen;
    }

    drawTab(frame) {
      if (this.tab === OVER_TIME) this.overTime.point_at(this.at[0]);
      if (BY_MESSAGE.has(this.tab)) return;
      this.show(this.tabNote, frame, `note-${this.tab}`);
      if (this.tab === "table") {
        this.show(this.panels.table, frame, "table");
        return;
      }
      this.show(this.strip, frame, "strip");
      if (this.tab === "guards") {
        this.show(this.panels.guards, frame, "guards");
        this.tabs.toggleAttribute("data-xray", this.panels.guards.querySelector(".xray") !== null);
        return;
      }
      this.show(this.fields, frame, "fields");
      this.drawOnlyChanges();
      this.show(this.ledger, frame, "ledger");
      const spec = this.piece(frame, "arrays");
      this.arraysHost.hidden = spec === undefined;
      if (spec) this.arrays.draw(frame.p.arrays, spec);
    }

    showOnlyChanges() {
      this.root.dataset.only = this.root.dataset.only === "changes" ? "all" : "changes";
      this.onlyKey.setAttribute("aria-pressed", String(this.root.dataset.only === "changes"));
      this.schedule();
    }

    // Rows that this step does not change are hidden by the stylesheet; a table without any row says so.
    drawOnlyChanges() {
      const table = this.fields.querySelector(".fields:not(.effects)");
      const changed = table?.querySelector("tr.is-changed");
      this.unchanged.hidden = this.root.dataset.only !== "changes" || !table || changed !== null;
    }

    giveFocus() {
      if (this.refocus) this.refocus.focus({ preventScroll: true });
      else this.focus();
      this.refocus = undefined;
    }

    scrollTimeline() {
      const now = this.timeBody.querySelector(".tl-cell.is-now, .tl-node.is-current");
      const line = this.timeBody.querySelector(".tl-line");
      const track = this.timeBody.querySelector(".tl-track");
      if (track) {
        track.classList.toggle("is-tight", this.tight); // as the one before: mostly it is so again
        this.tight = track.clientWidth / track.children.length < 56;
        track.classList.toggle("is-tight", this.tight);
      }
      if (now && line && line.scrollWidth > line.clientWidth) {
        const [there, room] = [now, line].map((element) => element.getBoundingClientRect());
        line.scrollLeft += (there.left + there.width / 2 - room.left - room.width / 2) / zoomOf(line);
      }
    }
  };
