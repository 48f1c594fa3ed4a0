// The tree of a run, drawn anew while the run goes on.

import {element} from "./markdown.js";

const PERIOD = 500; // Milliseconds between two looks.

export class Tree {
  constructor(target, button, api) {
    this.target = target;
    this.api = api;
    this.run = null;
    button.addEventListener("click", () => {
      target.hidden = !target.hidden;
      button.setAttribute("aria-expanded", String(!target.hidden));
      this.look();
    });
    setInterval(() => this.look(), PERIOD);
  }

  show(run) {
    this.run = run;
    this.look();
  }

  async look() {
    if (this.target.hidden || document.hidden) return;
    if (!this.run) {
      this.target.replaceChildren(element("p", {className: "dim", textContent: "Nothing runs."}));
      return;
    }
    const {id} = this.run;
    const {root} = await this.api.get(`runs/${id}/tree`).catch(() => ({}));
    if (id === this.run?.id && root) this.target.replaceChildren(element("ul", {className: "tree"}, branch(root)));
  }
}

function branch({name, where, waits_s: waits, children}) {
  const label = element("span", {}, element("strong", {textContent: name}));
  const since = waits >= 1 ? `for ${Math.round(waits)} s` : "";
  const place = [where, since].filter(Boolean).join(" ");
  if (place) label.append(" ", element("span", {className: "dim", textContent: place}));
  const item = element("li", {}, label);
  if (children.length) item.append(element("ul", {}, ...children.map(branch)));
  return item;
}
