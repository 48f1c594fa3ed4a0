// Messages of one chat on the page: those of the history, and those of a run while its events come in.

import {element, Markdown, safeUrl} from "./markdown.js";

const CALLS = new Set(["function_call", "plugin_call", "component_call", "mcp_call"]);
const OUTPUTS = new Set([...CALLS].map((type) => type + "_output"));
const MEDIA = ["https:", "data:", "blob:"]; // What the policy of the page lets it load from elsewhere.

export class Messages {
  constructor(log, {onAnswer, onEdit}) {
    this.log = log;
    this.onAnswer = onAnswer;
    this.onEdit = onEdit;
    this.clear();
  }

  clear() {
    this.log.replaceChildren();
    this.parts = new Map(); // By message id: what shows its parts.
    this.calls = new Map(); // By call id: the card of a tool call.
    this.questions = new Map();
    this.dirty = new Set();
  }

  get atEnd() {
    return this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 80;
  }

  scroll() {
    this.log.scrollTop = this.log.scrollHeight;
  }

  // What a user has sent.
  addOwn(content) {
    const shown = element("div", {className: "text"});
    for (const part of content) this.addPart(shown, part);
    const text = textOf(content);
    const edit = element("button", {type: "button", className: "quiet edit", textContent: "Edit"});
    const article = this.article("user", "You", shown);
    article.text = text;
    edit.addEventListener("click", () => this.onEdit(text, article));
    article.append(edit);
    return article;
  }

  // A whole message, as the history has it.
  addWhole(message) {
    if (isAsked(message)) {
      this.addOwn(message.content);
      return;
    }
    const id = message.id ?? crypto.randomUUID?.() ?? String(Math.random());
    this.take({object: "message", id, type: message.type, role: message.role, content: null});
    for (const [index, part] of message.content.entries()) {
      this.take({...part, object: "content", msg_id: id, index, delta: false});
    }
    this.take({...message, object: "message", id});
  }

  // Whole messages, behind which nothing goes on.
  addAll(earlier) {
    for (const message of earlier) this.addWhole(message);
    this.close();
    this.scroll();
  }

  // The place of what a user has sent in the messages of the history; their number if it is not there.
  placeOf(article, earlier) {
    const own = [...this.log.querySelectorAll("article.user")].indexOf(article);
    const places = [...earlier.keys()].filter((place) => isAsked(earlier[place]));
    const same = places.filter((place) => textOf(earlier[place].content) === article.text);
    return same.includes(places[own]) ? places[own] : (same.at(-1) ?? earlier.length);
  }

  // Take a message and all after it away.
  removeFrom(article) {
    while (article.nextSibling) article.nextSibling.remove();
    article.remove();
  }

  article(kind, name, ...children) {
    const article = element("article", {className: kind, "aria-label": name}, ...children);
    this.log.append(article);
    return article;
  }

  // An event of a run: a message begins or ends, or a part of it grows or is complete.
  take(event) {
    if (event.object === "message") {
      if (event.content === null || event.content === undefined) this.begin(event);
      else this.end(event);
    } else if (event.object === "content") {
      this.grow(event);
    }
  }

  begin({id, type, role}) {
    if (this.parts.has(id)) return;
    const body = element("div", {className: "text"});
    let root = body;
    if (type === "reasoning") {
      root = element("details", {className: "reasoning"}, element("summary", {textContent: "Reasoning"}), body);
    } else if (CALLS.has(type) || OUTPUTS.has(type) || type.startsWith("mcp_approval")) {
      root = null; // Shown when its data is there.
    }
    const article = root ? this.article(type === "error" ? "error" : "agent", role === "tool" ? "Tool" : "Agent", root) : null;
    this.parts.set(id, {type, body, article, shown: [], data: null});
  }

  grow(event) {
    const message = this.parts.get(event.msg_id);
    if (!message) return;
    if (event.type === "data" && (CALLS.has(message.type) || OUTPUTS.has(message.type))) {
      this.growCall(message, event);
    } else if (event.type === "text" || event.type === "refusal") {
      const part = (message.shown[event.index] ??= this.textPart(message));
      const text = event.text ?? event.refusal ?? "";
      part.text = event.delta ? part.text + text : text;
      this.draw(part);
    } else if (!event.delta && !message.type.startsWith("mcp_approval")) {
      this.addPart(message.body, event);
    }
  }

  textPart(message) {
    const target = element("div", {className: "markdown"});
    message.body.append(target);
    return {text: "", markdown: new Markdown(target)};
  }

  // Draw once a frame at most, however many tokens come in.
  draw(part) {
    if (!this.dirty.size) {
      requestAnimationFrame(() => {
        const follow = this.atEnd;
        for (const each of this.dirty) each.markdown.show(each.text);
        this.dirty.clear();
        if (follow) this.scroll();
      });
    }
    this.dirty.add(part);
  }

  end(event) {
    const message = this.parts.get(event.id);
    if (!message) return;
    const data = event.content.findLast?.((part) => part.type === "data")?.data;
    if (event.type === "mcp_approval_request" && data?.id) this.ask(data, event.content);
    if (event.type === "mcp_approval_response" && data) this.answered(data);
    if (event.type === "error") message.body.append(event.message ?? event.code ?? "An error.");
    if (event.status === "incomplete") message.article?.classList.add("incomplete");
  }

  addPart(target, part) {
    if (part.type === "text") {
      const shown = element("div", {className: "markdown"});
      new Markdown(shown).show(part.text);
      target.append(shown);
    } else if (part.type === "image") {
      this.addMedia(target, part.image_url, (src) => this.image(src));
    } else if (part.type === "audio") {
      const src = `data:audio/${(part.format ?? "wav").replace(/\W/g, "")};base64,${part.data}`;
      target.append(element("audio", {src, controls: true}));
    } else if (part.type === "video") {
      this.addMedia(target, part.video_url, (src) => element("video", {src, controls: true}));
    } else if (part.type === "file") {
      target.append(this.fileLink(part));
    } else if (part.type === "data") {
      target.append(json(part.data));
    }
  }

  // A picture or a video; a link to it, if the page may not load it.
  addMedia(target, text, make) {
    const href = text && safeUrl(text, [...MEDIA, "http:"], document.baseURI);
    if (!href) return;
    const {protocol, origin} = new URL(href);
    target.append(MEDIA.includes(protocol) || origin === location.origin ? make(href) : linkTo(href, href));
  }

  // A picture has no height until it is loaded. The log follows it as it follows the text.
  image(src) {
    const follow = this.atEnd;
    const image = element("img", {src, alt: "Image"});
    image.addEventListener("load", () => follow && this.scroll());
    return image;
  }

  fileLink({file_url, file_data, filename}) {
    const download = filename ?? "file";
    const href = safeUrl(file_url ?? "", ["https:", "http:"]);
    if (href) return linkTo(href, download);
    const link = element("a", {href: "#", textContent: download});
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const base64 = (file_data ?? "").replace(/^data:[^,]*,/, "");
      const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
      const url = URL.createObjectURL(new Blob([bytes], {type: "application/octet-stream"}));
      element("a", {href: url, download}).click();
      setTimeout(() => URL.revokeObjectURL(url), 1000);
    });
    return link;
  }

  // Tool calls: one card for the call and its output.

  growCall(message, event) {
    const data = event.data ?? {};
    const piece = event.delta && typeof data.arguments === "string" && typeof message.data?.arguments === "string";
    if (event.delta) {
      const merged = (message.data ??= {});
      for (const [name, value] of Object.entries(data)) {
        merged[name] = piece && name === "arguments" ? merged.arguments + value : (value ?? merged[name]);
      }
    } else {
      message.data = data;
    }
    const {call_id, name, arguments: given, output} = message.data;
    if (!call_id) return;
    const known = this.calls.get(call_id);
    const card = known ?? this.callCard(call_id);
    if (OUTPUTS.has(message.type)) {
      card.state.textContent = output === "interrupted" ? "stopped" : "done";
      card.root.dataset.state = card.state.textContent;
      card.output.replaceChildren(element("h3", {textContent: "Result"}), json(parsed(output)));
      return;
    }
    if (name) card.name.textContent = name;
    if (piece && known?.text) {
      card.text.append(data.arguments); // To read or draw all of them for each piece would take the square of their length.
    } else if (given !== undefined && (!event.delta || !known || data.arguments != null)) {
      const whole = json(event.delta ? given : parsed(given));
      card.text = event.delta ? whole.querySelector("code") : null;
      card.arguments.replaceChildren(element("h3", {textContent: "Arguments"}), whole);
    }
  }

  callCard(callId) {
    const follow = this.atEnd;
    const card = {name: element("strong", {textContent: "Tool"}), state: element("span", {className: "state", textContent: "runs"})};
    card.arguments = element("div");
    card.output = element("div");
    card.root = element("details", {className: "call"}, element("summary", {}, card.name, card.state), card.arguments, card.output);
    card.root.dataset.state = "runs";
    this.article("agent", "Tool call", card.root);
    this.calls.set(callId, card);
    if (follow) this.scroll();
    return card;
  }

  // Questions of the agent.

  ask({id, question, schema, fault}, content) {
    this.questions.get(id)?.remove();
    const follow = this.atEnd;
    const form = element("form", {className: "question"});
    const body = element("div", {className: "text"});
    for (const part of content.slice(0, -1)) this.addPart(body, part);
    if (!body.childNodes.length) body.append(question ?? "");
    form.append(body);
    if (fault) form.append(element("p", {className: "fault", textContent: `The last answer was not accepted: ${fault}`}));
    const row = element("div", {className: "row"});
    const send = async (value) => {
      const controls = [...row.children];
      for (const control of controls) control.disabled = true; // One answer, however often it is clicked.
      const taken = await this.onAnswer(id, value);
      for (const control of controls) control.disabled = taken;
    };
    for (const [label, value] of choicesOf(schema)) {
      const button = element("button", {type: "button", textContent: label});
      if (value === false) button.className = "quiet";
      button.addEventListener("click", () => send(value));
      row.append(button);
    }
    if (!row.childNodes.length) {
      const input = element("input", {type: "text", "aria-label": "Your answer", autocomplete: "off"});
      row.append(input, element("button", {textContent: "Answer"}));
      form.addEventListener("submit", () => send(typed(input.value, schema)));
    }
    form.addEventListener("submit", (event) => event.preventDefault());
    form.append(row);
    const article = this.article("agent asks", "Question of the agent", form);
    this.questions.set(id, article);
    if (follow) this.scroll();
    row.querySelector("input")?.focus();
  }

  answered({approval_request_id: id, answer, approve, reason}) {
    const article = this.questions.get(id);
    if (!article) return;
    const said = reason === "timeout" ? "Nobody answered in time." : `Answered: ${shown(answer ?? approve)}`;
    article.querySelector(".row")?.replaceWith(element("p", {className: "dim", textContent: said}));
    article.classList.remove("asks");
  }

  // The run is over: nothing can be answered, and no tool runs.
  close() {
    for (const article of this.questions.values()) {
      for (const control of article.querySelectorAll("button, input")) control.disabled = true;
    }
    for (const {root, state} of this.calls.values()) {
      if (root.dataset.state === "runs") root.dataset.state = state.textContent = "ended";
    }
  }
}

// Whether a message of the history is one that a user has sent.
export function isAsked({role, type}) {
  return role === "user" && type === "message";
}

export function textOf(content) {
  return content.filter((part) => part.type === "text").map((part) => part.text).join("\n");
}

function choicesOf(schema) {
  if (schema?.type === "boolean") return [["Approve", true], ["Deny", false]];
  if (Array.isArray(schema?.enum) && schema.enum.length <= 12) return schema.enum.map((value) => [shown(value), value]);
  return [];
}

function typed(text, schema) {
  if (["integer", "number"].includes(schema?.type)) return text.trim() === "" ? text : Number(text);
  return schema && schema.type !== "string" ? parsed(text) : text;
}

function shown(value) {
  if (value === true) return "yes";
  if (value === false) return "no";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function parsed(value) {
  try {
    return typeof value === "string" ? JSON.parse(value) : value;
  } catch {
    return value;
  }
}

function linkTo(href, textContent) {
  return element("a", {href, target: "_blank", rel: "noopener noreferrer", textContent});
}

function json(value) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  return element("pre", {tabIndex: 0}, element("code", {textContent: text ?? ""}));
}
