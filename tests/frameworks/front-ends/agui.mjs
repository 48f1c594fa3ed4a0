import { HttpAgent } from "@ag-ui/client";
const [url, scenario] = process.argv.slice(2);
const events = [];
const agent = (threadId, state) => new HttpAgent({ url, threadId, initialState: state ?? {} });
const seen = { onEvent: ({ event }) => { events.push(event); } };
const user = (content) => ({ id: crypto.randomUUID(), role: "user", content });
const thread = `ag-${scenario}-${process.pid}`;
const out = {};
async function say(a, text, more = {}) { a.addMessage(user(text)); return a.runAgent(more, seen); }
const a = agent(thread, { theme: "dark" });
switch (scenario) {
  case "chat": await say(a, "think"); await say(a, "hello"); break;
  case "tools": await say(a, "tools"); break;
  case "state": await say(a, "state"); break;
  case "media": await say(a, "media"); break;
  case "front-end": {
    await say(a, "call of the front end", { tools: [{ name: "confirm", description: "d", parameters: { type: "object" } }] });
    const call = a.messages.at(-1).toolCalls[0];
    a.addMessage({ id: "res-1", role: "tool", toolCallId: call.id, content: "yes, do" });
    await a.runAgent({}, seen);
    break;
  }
  case "abort": {
    const running = say(a, "slow").catch((e) => { out.thrown = String(e); });
    while (!events.some((e) => e.type === "TEXT_MESSAGE_CONTENT")) await new Promise((r) => setTimeout(r, 10));
    a.abortRun();
    await running;
    break;
  }
  case "error": await say(a, "break").catch((e) => { out.thrown = String(e); }); break;
  case "refused": {
    const refused = agent("x".repeat(300));
    await say(refused, "hello").catch((e) => { out.status = e.status; out.payload = e.payload; });
    break;
  }
  case "approve": {
    await say(a, "approve");
    out.pending = a.pendingInterrupts;
    await a.runAgent({ resume: [{ interruptId: a.pendingInterrupts[0].id, status: "resolved", payload: { approved: true } }] }, seen);
    break;
  }
  case "deny": {
    await say(a, "approve");
    await a.runAgent({ resume: [{ interruptId: a.pendingInterrupts[0].id, status: "cancelled" }] }, seen);
    break;
  }
  case "choose": {
    await say(a, "choose");
    const ask = (payload, status = "resolved") => a.runAgent({ resume: [{ interruptId: a.pendingInterrupts[0].id, status, payload }] }, seen);
    await ask("green");
    out.fault = a.pendingInterrupts[0].metadata;
    await ask("red");
    await ask(true);
    break;
  }
  case "give up": {
    await say(a, "choose");
    await a.runAgent({ resume: [{ interruptId: a.pendingInterrupts[0].id, status: "cancelled" }] }, seen).catch((e) => { out.thrown = String(e); });
    break;
  }
}
console.log(JSON.stringify({ ...out, events, messages: a.messages, state: a.state, pending_now: a.pendingInterrupts }));
