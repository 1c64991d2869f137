// The layout for a talk.

// A talk is laid out for 960 x 540 pixels and enlarged as a whole: 24 px and more at 1920 x 1080. Where that would be
// less than 20 px, it is enlarged to 20 and shown half by half.
const TALK = { width: 960, height: 540, least: 20 / 12, narrowest: 800 };
const HANDS_SHOWN = 3000;

const Talk = (Base) =>
  class extends Base {
    buildCaption(host) {
      this.captionHost = host;
      host.tabIndex = -1;
      this.caption = make("div", "mx-caption-words");
      const keys = make("div", "mx-talk-keys");
      const key = (text, label, action) => {
        const made = make("button", "mx-key", text);
        made.type = "button";
        made.setAttribute("aria-label", label);
        made.addEventListener("click", action);
        keys.append(made);
      };
      key("⇧←", "previous step", () => this.byCell(-1));
      key("⇧→", "next step", () => this.byCell(1));
      key("X", "the other half", () => this.otherHalf());
      key("Leave", "leave the layout of a talk", () => this.layOut(false));
      host.append(this.caption, keys);
    }

    get talking() {
      return this.frameBox().dataset.layout === "talk";
    }

    // Lay the page out for a talk, or as usual again. In a notebook a cell is too small for one: it fills the screen.
    layOut(talk) {
      const box = this.frameBox();
      if (talk) {
        box.dataset.layout = "talk";
        box.dataset.drawer = "none";
        if (!document.body.dataset.voila) box.requestFullscreen?.().catch(() => {}); // a cell it stays, then
      } else {
        delete box.dataset.layout;
        delete box.dataset.half;
        delete box.dataset.both;
        if (document.fullscreenElement === box) document.exitFullscreen();
      }
      this.fitTalk();
      this.say({ t: "size", ...this.sizes() });
      this.writeAddress();
      this.focus();
    }

    fitTalk() {
      const box = this.frameBox();
      if (!this.talking) return box.style.removeProperty("--zoom");
      const whole = document.body.dataset.voila || document.fullscreenElement === box;
      const width = whole ? innerWidth : box.parentElement.clientWidth;
      const height = whole ? innerHeight : 768;
      const both = Math.min(width / TALK.width, height / TALK.height);
      const halves = both < TALK.least;
      const zoom = halves ? Math.min(TALK.least, Math.max(width / TALK.narrowest, 1)) : both;
      box.style.setProperty("--zoom", String(zoom));
      box.toggleAttribute("data-both", !halves);
      box.dataset.half ??= "tab";
      return undefined;
    }

    otherHalf() {
      const box = this.frameBox();
      if (!this.talking) return;
      box.dataset.half = box.dataset.half === "map" ? "tab" : "map";
      this.measure();
    }

    // What the mouse may press in a talk shows while it moves.
    showHands() {
      const box = this.frameBox();
      box.dataset.moved = "";
      clearTimeout(this.hands);
      this.hands = setTimeout(() => delete box.dataset.moved, HANDS_SHOWN);
    }
  };
