// The session: is there a kernel that answers?

const PING_EVERY = 2000;
const LOST_AFTER = 5000;
const REST_AFTER = 10_000; // without a hand on the page: no ping then, so that a session left alone counts as idle

// What lies between the page and its kernel.
//   alive  it answers
//   busy   it works on one thing for long
//   cut    the connection is down, and tried again
//   gone   no kernel knows this page any more: it died, was ended as idle, or the server was started anew
class Session {
  constructor(model, ping, onChange) {
    Object.assign(this, { model, ping, onChange });
    this.state = "alive";
    this.touched = performance.now();
    this.unanswered = null; // since when a ping waits
    this.retried = -LOST_AFTER;
  }

  get kernel() {
    return this.model.widget_manager?.kernel;
  }

  get connected() {
    return (this.kernel?.connectionStatus ?? "connected") === "connected";
  }

  start(signal) {
    const heart = setInterval(() => this.beat(), PING_EVERY);
    const onStatus = (_, status) => /restarting|terminating|dead/.test(status) && this.become("gone");
    this.kernel?.statusChanged?.connect(onStatus);
    for (const name of ["pointermove", "pointerdown", "keydown", "focus", "visibilitychange"]) {
      window.addEventListener(name, () => this.touch(), { capture: true, passive: true, signal });
    }
    window.addEventListener("online", () => this.connected || this.retry(), { signal });
    signal.addEventListener("abort", () => {
      clearInterval(heart);
      this.kernel?.statusChanged?.disconnect(onStatus);
    });
  }

  touch() {
    const rested = performance.now() - this.touched > REST_AFTER;
    this.touched = performance.now();
    if (rested) this.beat();
  }

  beat() {
    const now = performance.now();
    if (this.kernel?.connectionStatus === "disconnected") this.retry(); // Jupyter tries a few minutes and gives up
    if (!this.connected && this.unanswered !== null) this.unanswered = now; // the clock stands still
    this.become(this.judge(now));
    if (!this.connected || now - (this.unanswered ?? now) > PING_EVERY / 2) this.ask();
    const wanted = now - this.touched < REST_AFTER || this.state !== "alive";
    if (this.state === "gone" || !this.connected || !wanted) return;
    this.unanswered ??= now;
    this.ping();
  }

  judge(now) {
    if (this.state === "gone" || this.kernel?.status === "dead" || this.kernel?.isDisposed) return "gone";
    if (!this.connected) return "cut";
    if (this.unanswered === null || now - this.unanswered <= LOST_AFTER) return this.state;
    return this.kernel?.status === "busy" ? "busy" : "gone";
  }

  // Who tries to reconnect is not told that the server knows no such kernel, nor is a page whose kernel was ended as idle.
  async ask() {
    const { id, serverSettings } = this.kernel ?? {};
    if (!id || !serverSettings || this.state === "gone") return;
    const headers = serverSettings.token ? { Authorization: `token ${serverSettings.token}` } : {};
    const answer = await fetch(`${serverSettings.baseUrl}api/kernels/${id}`, { headers, cache: "no-store" }).catch(() => null);
    if (answer?.status === 404 || answer?.status === 403) this.become("gone");
    // Jupyter waits longer from try to try; now it need not.
    else if (answer && !this.connected && performance.now() - this.retried > LOST_AFTER) this.retry();
  }

  heard() {
    this.unanswered = null;
    this.become("alive");
  }

  become(state) {
    if (state === this.state) return;
    const before = this.state;
    this.state = state;
    this.onChange(before);
  }

  retry() {
    this.retried = performance.now();
    if (this.kernel?.isDisposed) return; // Jupyter has given it up, and would throw
    this.kernel?.reconnect?.().catch(() => {}); // still cut: it is tried again
  }
}
