// The page: chats in a list, one of them open, its messages, and a field to write in.

import {Api, newId, Problem} from "./api.js";
import {element} from "./markdown.js";
import {Messages, isAsked, textOf} from "./messages.js";
import {Tree} from "./tree.js";

const LOOK = 3000; // Milliseconds between two looks for a run that was started elsewhere.
const MAX_FILE = 700 * 1024; // Of one file. The body of a request is limited, too.
const KEPT_TITLES = 200;
const MAX_NAMED = 20; // Chats whose titles are asked of the server each time that the list is shown.

const SAID = {
  session_busy: "This chat is still answering. Stop it first, or wait for its end.",
  rate_limited: "The server is busy. Try again in a moment.",
  queue_full: "Too many messages wait in this chat already.",
  draining: "The server is restarting. Try again in a moment.",
  backend_unavailable: "The server cannot reach its database at present. Try again in a moment.",
  payload_too_large: "That is too large to send.",
  unauthorized: "This app wants to know who you are. Enter a token.",
  forbidden: "You may not do that here.",
  run_not_found: "This answer is not known any more.",
  stream_expired: "This answer is not kept any more; the history of the chat may have it.",
  deadline_exceeded: "The answer took longer than its time limit.",
  lease_lost: "The server lost its connection to its database, and broke the answer off.",
  owner_lost: "The server that wrote this answer is gone.",
  answer_too_large: "The answer grew too large.",
  cleanup_timeout: "The answer was stopped, but tidying up took too long.",
  exception: "The agent failed. The server's log says why.",
};

const $ = (id) => document.getElementById(id);
const api = new Api(document.body.dataset.endpoint);
const tabs = new BroadcastChannel("trio-agentapp-chat");
const messages = new Messages($("log"), {onAnswer: answer, onEdit: edit});
const tree = new Tree($("tree"), $("show-tree"), api);
let session = null; // The id of the open chat.
let run = null; // The run that is shown while it is live.
let attached = [];
let edited = null; // The live run whose question is edited: what is sent takes its place.
let branching = null; // The earlier message that is edited: what is sent begins a new chat with what stands before it.

// Chats.

const titles = JSON.parse(localStorage.getItem("agentapp.titles") ?? "{}");
const asked = new Set(); // Chats whose titles the server was asked for.

function keepTitle(id, text) {
  titles[id] ??= text.trim().slice(0, 60) || "Files";
  for (const old of Object.keys(titles).slice(0, -KEPT_TITLES)) delete titles[old];
  localStorage.setItem("agentapp.titles", JSON.stringify(titles));
}

function keepTitleOf(id, earlier) {
  const first = earlier.find(isAsked);
  if (first) keepTitle(id, textOf(first.content));
}

async function listSessions() {
  const {runs} = await api.get("runs?limit=100");
  const latest = new Map([...runs].reverse().map((each) => [each.session_id, each]));
  const known = [...new Set(runs.map((each) => each.session_id))];
  const buttons = known.map((id) => {
    const button = element("button", {type: "button", className: "session", textContent: titleOf(latest.get(id))});
    button.dataset.session = id;
    if (id === session) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => open(id));
    return button;
  });
  $("sessions").replaceChildren(...buttons.map((button) => element("li", {}, button)));
  nameOthers([...latest.values()].reverse());
}

function titleOf({session_id: id, started_at: at}) {
  return titles[id] ?? (at ? `Chat of ${new Date(at * 1000).toLocaleString()}` : "Chat");
}

// Chats that began in another browser have their titles in the history of the server.
async function nameOthers(chats) {
  const nameless = chats.filter(({session_id: id}) => !titles[id] && !asked.has(id)).slice(0, MAX_NAMED);
  for (const {session_id: id} of nameless) asked.add(id);
  for (const {session_id: id} of nameless) {
    try {
      keepTitleOf(id, (await api.get(`sessions/${encodeURIComponent(id)}/history`)).messages);
      // The list may have been made anew meanwhile.
      const button = [...document.querySelectorAll(".session")].find((each) => each.dataset.session === id);
      if (button && titles[id]) button.textContent = titles[id];
    } catch (problem) {
      console.warn(problem);
    }
  }
}

function startNew() {
  show(newId());
  $("text").focus();
}

function show(id) {
  if (run) run.left = true;
  session = id;
  run = edited = branching = null;
  messages.clear();
  setLive(false);
  say("");
  document.body.classList.remove("side-open");
  $("title").textContent = titles[id] ?? "New chat";
  history.replaceState(null, "", `#${encodeURIComponent(id)}`);
  for (const each of document.querySelectorAll(".session[aria-current]")) each.removeAttribute("aria-current");
}

async function open(id) {
  show(id);
  try {
    const [{messages: earlier}, {active_run_id: active}] = await Promise.all([
      api.get(`sessions/${encodeURIComponent(id)}/history`),
      api.get(`sessions/${encodeURIComponent(id)}`),
    ]);
    if (id !== session) return;
    // A run that began this chat out of another one has the messages from there. They are saved when it ends.
    const shown = earlier.length ? earlier : JSON.parse(sessionStorage.getItem(`agentapp.before.${id}`) ?? "[]");
    messages.addAll(shown);
    keepTitleOf(id, shown);
    $("title").textContent = titles[id] ?? (shown.length ? "Chat" : "New chat");
    await listSessions();
    if (active && !run) watch(active);
  } catch (error) {
    tell(error);
  }
}

// Runs.

function watch(id, {content, start} = {}) {
  edited = null;
  const own = content ?? JSON.parse(sessionStorage.getItem(`agentapp.asked.${id}`) ?? "null");
  const article = own ? messages.addOwn(own) : null;
  messages.scroll();
  run = {id, sessionId: session, seen: -1, ended: false, left: false, asked: Boolean(own), article};
  follow(run, start);
}

async function follow(mine, start) {
  setLive(true);
  say("");
  try {
    await api.follow(mine, start, (event) => mine.left || take(mine, event), (up) => mine.left || connection(up));
  } catch (error) {
    if (!mine.left) tell(error);
  }
  if (mine.left) return;
  const wasAsked = mine.asked;
  run = edited = null;
  messages.close();
  setLive(false);
  if (!wasAsked && mine.ended) await open(mine.sessionId); // The history has what was asked elsewhere.
  else listSessions().catch(tell);
}

function take(mine, event) {
  if (event.object !== "response") {
    messages.take(event);
    return;
  }
  if (!mine.ended) return;
  const failure = event.error ?? {};
  if (event.status === "canceled") say(mine.receipt ?? "The answer was stopped.");
  else if (event.status === "rejected") error(failure.message);
  else if (event.status === "failed") error(SAID[failure.code] ?? failure.message ?? "The answer failed.", failure);
  else if (!event.output?.length) say("The agent had nothing to say.");
  else say("The answer is complete.", true);
}

function connection(up) {
  say(up ? "" : "The connection is lost. Trying again …");
}

// Begin a new chat with the messages before one of this chat. Returns them.
async function branchOff(article) {
  const {messages: earlier} = await api.get(`sessions/${encodeURIComponent(session)}/history`);
  const before = earlier.slice(0, messages.placeOf(article, earlier));
  show(newId());
  messages.addAll(before);
  keep(`agentapp.before.${session}`, before);
  return before;
}

// Keep something for a reload of this tab, if there is room.
function keep(name, value) {
  try {
    sessionStorage.setItem(name, JSON.stringify(value));
  } catch {
    // After a reload it is shown when the answer has ended.
  }
}

async function send(text, files, {strategy, before = []} = {}) {
  const content = [...(text.trim() ? [{type: "text", text}] : []), ...files];
  const mine = {id: newId(), sessionId: session};
  const body = {input: [...before, {role: "user", type: "message", content}]};
  if (strategy) body.multitask_strategy = strategy;
  keepTitle(session, text);
  $("title").textContent = titles[session];
  keep(`agentapp.asked.${mine.id}`, content);
  const start = api.start(mine, body);
  const told = async () => {
    const response = await start();
    tabs.postMessage({session: mine.sessionId, run: mine.id, content}); // There is a run to watch from now on.
    return response;
  };
  watch(mine.id, {content, start: told});
}

async function stop() {
  const mine = run;
  if (!mine) return;
  $("stop").disabled = true;
  try {
    const receipt = await api.post(`runs/${mine.id}/cancel?wait=1`, {});
    const cleanup = {done: ", and tidied up", timed_out: ", but tidying up took too long"}[receipt.cleanup] ?? "";
    mine.receipt = receipt.stopped ? `Stopped after ${Math.round(receipt.latency_ms)} ms${cleanup}.` : receipt.message;
    say(mine.receipt);
  } catch (problem) {
    tell(problem);
  } finally {
    $("stop").disabled = false;
  }
}

// Whether the answer was taken.
async function answer(id, value) {
  const data = {approval_request_id: id, answer: value};
  if (typeof value === "boolean") data.approve = value;
  const message = {role: "user", type: "mcp_approval_response", content: [{type: "data", data}]};
  try {
    await api.post(`runs/${run?.id}/input`, message);
    return true;
  } catch (problem) {
    tell(problem);
    return false;
  }
}

// The field, and the line of status.

function edit(text, article) {
  edited = run && run.article === article ? run : null;
  branching = run ? null : article;
  setLive(Boolean(run));
  if (branching) say("What you send begins a new chat from here. Escape or an empty field keeps this one.");
  $("text").value = text;
  resize();
  $("text").focus();
}

// What is sent goes to this chat after all.
function stay() {
  branching = null;
  setLive(false);
  say("");
}

function resize() {
  const field = $("text");
  field.rows = Math.min(10, field.value.split("\n").length);
}

function setLive(live) {
  $("stop").hidden = !live;
  $("send").hidden = live && !edited;
  $("send").textContent = edited ? "Replace" : branching ? "Send in a new chat" : "Send";
  document.body.classList.toggle("live", live);
  tree.show(live ? run : null);
}

function say(text, quiet = false) {
  $("status").className = quiet ? "hidden" : "";
  $("status").textContent = text;
}

function error(text, details) {
  const article = messages.article("error", "Error", element("p", {textContent: text}));
  if (details?.message && details.message !== text) {
    const more = element("details", {}, element("summary", {textContent: "Details"}), `${details.code}: ${details.message}`);
    article.append(more);
  }
  say(text, true);
  messages.scroll();
  return article;
}

function tell(problem) {
  const known = problem instanceof Problem;
  const text = known ? (SAID[problem.code] ?? problem.message) : "The server cannot be reached. Is it running?";
  const article = error(text, known ? {code: problem.code, message: problem.message} : null);
  if (known && problem.code === "unauthorized") $("token-dialog").showModal();
  if (known && problem.code === "session_busy") {
    const button = element("button", {type: "button", textContent: "Show it"});
    button.addEventListener("click", () => open(session));
    article.append(button);
  }
  if (!known) console.error(problem);
}

async function attach(chosen) {
  for (const file of chosen) {
    if (file.size > MAX_FILE) {
      error(`${file.name} is larger than ${MAX_FILE / 1024} KiB, which is the most that this page sends.`);
      continue;
    }
    const url = await new Promise((done) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result);
      reader.readAsDataURL(file);
    });
    attached.push(
      file.type.startsWith("image/")
        ? {type: "image", image_url: url, filename: file.name}
        : {type: "file", filename: file.name, file_data: url.replace(/^data:[^,]*,/, "")},
    );
  }
  showAttached();
}

function showAttached() {
  const items = attached.map((file, place) => {
    const remove = element("button", {type: "button", className: "icon", textContent: "✕", "aria-label": `Remove ${file.filename}`});
    remove.addEventListener("click", () => {
      attached.splice(place, 1);
      showAttached();
    });
    return element("li", {}, file.filename, remove);
  });
  $("files").replaceChildren(...items);
}

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  await ready;
  const text = $("text").value;
  if (!(text.trim() || attached.length)) return;
  const replaced = run && run === edited ? run : null;
  if (run && !replaced) {
    say("The answer is still being written. Stop it first, or wait for its end.");
    return;
  }
  const files = attached.map(({filename, ...part}) => (part.type === "file" ? {...part, filename} : part));
  $("text").value = "";
  attached = [];
  showAttached();
  resize();
  if (replaced) {
    replaced.left = true;
    messages.removeFrom(replaced.article);
    send(text, files, {strategy: "rollback"});
    return;
  }
  try {
    send(text, files, {before: branching ? await branchOff(branching) : []});
  } catch (problem) {
    $("text").value = text;
    tell(problem);
  }
});
$("text").addEventListener("input", () => {
  resize();
  if (branching && !$("text").value) stay();
});
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("form").requestSubmit();
});
$("text").addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) attach([...event.clipboardData.files]);
});
$("attach").addEventListener("change", () => {
  attach([...$("attach").files]);
  $("attach").value = "";
});
$("stop").addEventListener("click", stop);
$("new").addEventListener("click", startNew);
$("open-side").addEventListener("click", () => document.body.classList.add("side-open"));
$("close-side").addEventListener("click", () => document.body.classList.remove("side-open"));
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || $("token-dialog").open) return;
  if (document.body.classList.contains("side-open")) {
    document.body.classList.remove("side-open");
    $("open-side").focus();
  } else if (branching) {
    stay();
  } else {
    stop();
  }
});

// Light and dark.

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
  localStorage.setItem("agentapp.theme", theme);
}

$("theme").addEventListener("click", () => {
  const order = ["system", "light", "dark"];
  setTheme(order[(order.indexOf(document.documentElement.dataset.theme) + 1) % 3]);
});
setTheme(localStorage.getItem("agentapp.theme") ?? "system");

// A token.

$("sign-in").addEventListener("click", () => $("token-dialog").showModal());
$("token-dialog").addEventListener("close", () => {
  if ($("token-dialog").returnValue !== "ok") return;
  if ($("token").value) sessionStorage.setItem("agentapp.token", $("token").value);
  else sessionStorage.removeItem("agentapp.token");
  ready = begin();
});

// Other tabs, and other devices.

tabs.addEventListener("message", ({data}) => {
  if (data.session === session && !run) watch(data.run, {content: data.content});
});

setInterval(async () => {
  const id = session;
  if (!id || run || document.hidden || !titles[id]) return;
  const {active_run_id: active} = await api.get(`sessions/${encodeURIComponent(id)}`).catch(() => ({}));
  if (active && id === session && !run) watch(active);
}, LOOK);

// The chat that the address names; an empty text if it names none, or in a wrong spelling.
function wantedSession() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

async function begin() {
  const wanted = wantedSession();
  if (wanted) show(wanted);
  else startNew();
  try {
    await api.identify();
    if (wanted) await open(wanted);
    await listSessions();
  } catch (problem) {
    tell(problem);
  }
}

window.addEventListener("hashchange", () => {
  const wanted = wantedSession();
  if (wanted && wanted !== session) open(wanted);
});

let ready = begin(); // A message that is sent earlier waits for it: it would be sent as nobody, into no chat.
