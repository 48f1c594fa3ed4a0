// The routes of the app, and the stream of a run with its reconnects.

const ATTEMPTS = 60; // With pauses of 5 seconds at most: for about five minutes.

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? `The server answered with ${status}.`);
    this.status = status;
    this.code = body.code ?? "";
    this.body = body;
  }
}

export class Api {
  constructor(endpoint) {
    this.endpoint = endpoint.replace(/^\//, "");
    this.userId = null; // Null: the server knows who is here.
  }

  get token() {
    return sessionStorage.getItem("agentapp.token");
  }

  // Find out as whom this page may act: by its token or cookie, else by a name that this browser keeps.
  async identify() {
    if (!localStorage.getItem("agentapp.user")) localStorage.setItem("agentapp.user", "web-" + newId());
    this.userId = localStorage.getItem("agentapp.user");
    for (const userId of this.token ? [null] : [this.userId, null]) {
      this.userId = userId;
      try {
        return await this.get("runs?limit=100");
      } catch (problem) {
        if (!(problem instanceof Problem) || userId === null) throw problem;
      }
    }
  }

  async fetch(path, options = {}) {
    const headers = {...options.headers};
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    const response = await fetch(this.url(path), {...options, headers});
    if (response.ok) return response;
    throw new Problem(response.status, await response.json().catch(() => ({})));
  }

  url(path) {
    const url = new URL(path, document.baseURI);
    if (this.userId !== null) url.searchParams.set("user_id", this.userId);
    return url;
  }

  async get(path) {
    return (await this.fetch(path)).json();
  }

  async post(path, body) {
    const options = {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)};
    return (await this.fetch(path, options)).json();
  }

  // Start a run. The key makes it safe to try again: a repeated request watches the run of the first one.
  start(run, body) {
    const user = this.userId === null ? {} : {user_id: this.userId};
    const request = {...body, ...user, id: run.id, session_id: run.sessionId, stream: true};
    request.on_disconnect = {cancel_after: 300};
    const headers = {"Content-Type": "application/json", "Idempotency-Key": run.id};
    return () => this.fetch(this.endpoint, {method: "POST", headers, body: JSON.stringify(request)});
  }

  // Call onEvent for each event of a run, once and in order, through broken connections.
  async follow(run, open, onEvent, onConnection) {
    const resume = () => {
      const headers = run.seen < 0 ? {} : {"Last-Event-ID": run.seen};
      return this.fetch(`runs/${encodeURIComponent(run.id)}/stream`, {headers});
    };
    for (let attempt = 0; !run.ended; attempt += 1) {
      try {
        const response = await (open ?? resume)();
        if (response.status === 204) return;
        open = null;
        onConnection(true);
        if (await read(response.body, run, onEvent)) attempt = 0;
      } catch (error) {
        const broken = error instanceof TypeError || (error instanceof Problem && error.status === 503);
        if (!broken || attempt >= ATTEMPTS) throw error;
      }
      if (run.ended) return;
      onConnection(false);
      await new Promise((wake) => setTimeout(wake, Math.min(5000, 200 * 2 ** Math.min(attempt, 5))));
    }
  }
}

async function read(body, run, onEvent) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  const pieces = [];
  let any = false;
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return any;
    pieces.push(value);
    if (!value.includes("\n")) continue;
    const frames = pieces.join("").split("\n\n");
    pieces.length = 0;
    pieces.push(frames.pop());
    for (const frame of frames) {
      const found = /^id: (\d+)\ndata: (.*)$/.exec(frame);
      if (!found) continue; // A sign of life, or a gap.
      const event = JSON.parse(found[2]);
      if (event.sequence_number <= run.seen) continue;
      any = true;
      run.seen = event.sequence_number;
      run.ended = event.object === "response" && !["created", "in_progress"].includes(event.status);
      onEvent(event);
    }
  }
}

export function newId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
