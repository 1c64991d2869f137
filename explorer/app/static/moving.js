// Moving: the cursor, play, and which stops are asked for ahead.

const END = 1e6; // a step beyond the last of any operation
const AHEAD = 14;
const PLAY_STEP = 600;
const STORY_TIME = 1200;
const SPEEDS = [0.25, 0.5, 1, 2, 4];

const Moving = (Base) =>
  class extends Base {
    key_of(stop) {
      return `${stop[0]}:${stop[1]}`;
    }

    // Go to a stop; a cell beyond the last means the end of the operation, an operation beyond the last that of the run.
    go(stop, { report = true } = {}) {
      const last = this.ghost ? this.ops : this.ops - 1;
      const op = Math.min(Math.max(stop[0], -1), last);
      const cell = stop[0] > last ? END : stop[1];
      const n = op < 0 ? 1 : this.cells.get(op);
      const target = n === undefined ? [op, cell] : [op, op < 0 ? 0 : Math.min(Math.max(cell, 0), n - 1)];
      if (!this.frames.has(this.key_of(target))) {
        if (this.session.state === "gone") {
          this.tell("That step was not drawn before the session was lost. A reload has it.", "error");
          return;
        }
        this.wanted = target;
        this.root.dataset.state = "loading";
        this.fetch(target);
        return;
      }
      this.wanted = null;
      this.at = target;
      this.schedule();
      if (report) this.report();
      this.prefetch();
    }

    // Ask for the stop a person goes to. While a key is held only once the one before has come: of keys that are faster
    // than pictures only the newest is asked for.
    fetch(stop) {
      const key = this.key_of(stop);
      if (this.onTheWay.length > Number(this.released) || this.onTheWay.some((other) => this.key_of(other) === key)) return;
      this.onTheWay.push(stop);
      this.asked.clear(); // Python drops what was asked for ahead
      this.say({ t: "want", rev: this.rev, stops: [stop] });
    }

    // A key or the scrubber was let go: this is where a person wants to be, whatever else is on its way.
    release() {
      this.released = true;
      if (this.wanted) this.fetch(this.wanted);
      else this.prefetch();
    }

    // Ask for frames of stops where a person may go next.
    wantAhead(stops) {
      const missing = stops.map((stop) => [stop, this.key_of(stop)]).filter(([, key]) => !this.frames.has(key) && !this.asked.has(key));
      if (!missing.length) return;
      missing.forEach(([, key]) => this.asked.add(key));
      this.say({ t: "want", rev: this.rev, stops: missing.map(([stop]) => stop), ahead: true });
    }

    // Ask for what a person may want next, before they do; who holds a key wants what it leads to and nothing else.
    prefetch() {
      clearTimeout(this.prefetching);
      if (!this.released) return;
      this.prefetching = setTimeout(() => {
        const [op, cell] = this.at;
        const last = this.ghost ? this.ops : this.ops - 1;
        const n = this.cells.get(op) ?? 1;
        const end = (at) => [at, this.cellsOf(at) - 1];
        const inside = Array.from({ length: n }, (_, c) => [op, c]).sort((a, b) => Math.abs(a[1] - cell) - Math.abs(b[1] - cell));
        // Where one key leads, then where two do, then the rest of what is open.
        const stops = [end(op + 1), end(op - 1), ...inside.slice(0, 3), [op + 1, 0], end(op + 2), end(op - 2), ...inside.slice(3)];
        this.wantAhead(stops.filter(([at]) => at >= -1 && at <= last).slice(0, AHEAD));
      }, 30);
    }

    // Steps of an operation; one that was never seen may have any number.
    cellsOf(op) {
      return op < 0 ? 1 : (this.cells.get(op) ?? END + 1);
    }

    // Keys count from where the last one leads, drawn or still on its way.
    byOp(d) {
      const [op, cell] = this.wanted ?? this.at;
      const n = this.cellsOf(op);
      if (d > 0) this.go(cell < n - 1 ? [op, n - 1] : [op + 1, END]);
      else this.go([op - 1, END]);
    }

    byCell(d) {
      const [op, cell] = this.wanted ?? this.at;
      const n = this.cellsOf(op);
      if (d > 0) this.go(cell < n - 1 ? [op, cell + 1] : [op + 1, 0]);
      else this.go(cell > 0 ? [op, cell - 1] : [op - 1, END]);
    }

    // Python hears the cursor at once, then at most ten times a second, and when it rests.
    report() {
      if (this.reporting) return;
      this.tellPlace();
      this.reporting = setTimeout(() => {
        this.reporting = null;
        this.tellPlace();
      }, 100);
    }

    tellPlace() {
      const now = this.key_of(this.at);
      if (now !== this.reported) {
        this.reported = now;
        this.say({ t: "at", rev: this.rev, op: this.at[0], cell: this.at[1] });
      }
      this.writeAddress(); // an answer that came meanwhile may have written the stop between
    }

    toggle() {
      if (this.playing) this.pause();
      else this.play(PLAY_STEP / this.speed);
    }

    setSpeed(speed) {
      this.speed = speed;
      this.root.dataset.speed = String(speed);
      this.speedButton.textContent = `${{ 0.25: "¼", 0.5: "½" }[speed] ?? speed}×`;
      this.speedButton.setAttribute("aria-label", `speed of play, ${speed} times`);
      if (this.playing && !this.until) this.play(PLAY_STEP / speed);
    }

    // Play until the end, a refusal, a violation, or the stop `until`.
    play(every, until = null) {
      this.pause();
      this.until = until;
      this.playButton.textContent = "❚❚";
      this.playButton.setAttribute("aria-label", "pause");
      this.root.dataset.playing = "yes";
      const from = this.key_of(this.at);
      this.playing = setInterval(() => {
        if (this.wanted) return undefined; // still on its way
        const before = this.key_of(this.at);
        if (until && before === this.key_of(until)) return this.pause();
        // A stop that was still on its way, or whose mark came later, holds here.
        if (!until && before !== from && this.holds()) return this.pause();
        this.byCell(1);
        if (this.wanted) return undefined;
        if (this.key_of(this.at) === before || (!until && this.holds())) this.pause();
        return undefined;
      }, every);
    }

    // Show an operation step by step in the time of one glance; a key finishes it at once.
    playInto(op) {
      const cells = this.cells.get(op) ?? 1;
      if (cells < 2) return;
      if (matchMedia("(prefers-reduced-motion: reduce)").matches) this.go([op, cells - 1]);
      else this.play(STORY_TIME / cells, [op, cells - 1]);
    }

    pause() {
      clearInterval(this.playing);
      this.playing = null;
      this.until = null;
      this.root.dataset.playing = "no";
      this.playButton.textContent = "▶";
      this.playButton.setAttribute("aria-label", "play");
    }

    // A key during a short motion finishes it and acts.
    finish() {
      if (!this.until) return;
      const until = this.until;
      this.pause();
      this.go(until);
    }

    start() {
      if (this.started) return;
      this.started = loadPlotly((give) => {
        this.givePlotly = give;
        this.say({ t: "plotly" });
      }).then(
        (plotly) => {
          this.plotly = plotly;
          this.schedule();
        },
        () => {}, // the sketches stay, and show the same
      );
    }

    answer(n) {
      if (this.asking && this.say({ t: "answer", n })) this.asking = false;
    }

    // Who holds a key is shown what lies on the way, even if the place they are at by now is not there yet.
    pass([op, cell]) {
      if (this.released) return;
      const [from, to] = [this.at[0], this.wanted[0]];
      if ((op - from) * (op - to) >= 0) return;
      this.at = [op, cell];
      this.schedule();
    }

    forgetFrames() {
      this.frames.clear();
      this.asked.clear();
      this.onTheWay = [];
    }

    // Let go of pieces, and of the frames that need one of them; what is shown stays.
    forget(digests) {
      const shown = new Set(Object.values(this.frames.get(this.key_of(this.at))?.p ?? {}));
      const gone = new Set(digests.filter((digest) => !shown.has(digest)));
      gone.forEach((digest) => this.pieces.delete(digest));
      for (const [key, frame] of this.frames) {
        if (Object.values(frame.p).some((digest) => gone.has(digest))) this.frames.delete(key);
      }
    }

    writeAddress() {
      if (!document.body.dataset.voila || !this.link) return;
      const query = new URLSearchParams(this.link);
      if (this.link.at) query.set("at", `${this.at[0] + 1}.${this.at[1] + 1}`);
      if (BY_MESSAGE.has(this.tab)) query.set("tab", this.tab);
      if (this.talking) query.set("layout", "talk");
      const text = query.toString();
      const url = text ? `${location.pathname}?${text}` : location.pathname;
      if (url !== location.pathname + location.search) history.replaceState(history.state, "", url);
    }
  };
