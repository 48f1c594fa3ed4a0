import { AbstractChat, DefaultChatTransport, readUIMessageStream, lastAssistantMessageIsCompleteWithApprovalResponses, lastAssistantMessageIsCompleteWithToolCalls } from "ai";
const [api, scenario] = process.argv.slice(2);
const id = `ui-${scenario}-${process.pid}`;
const out = { headers: [] };
const sleep = (ms) => new Promise((r) => setTimeout(r, ms));
const noted = async (...args) => { const r = await fetch(...args); out.headers.push([r.status, r.headers.get("x-vercel-ai-ui-message-stream"), r.headers.get("content-type")]); return r; };
class State {
  status = "ready"; error = undefined; messages = [];
  pushMessage = (m) => { this.messages = [...this.messages, m]; };
  popMessage = () => { this.messages = this.messages.slice(0, -1); };
  replaceMessage = (i, m) => { this.messages = [...this.messages.slice(0, i), structuredClone(m), ...this.messages.slice(i + 1)]; };
  snapshot = (v) => structuredClone(v);
}
class Chat extends AbstractChat { constructor(init) { super({ ...init, state: new State() }); } }
const data = [], errors = [];
const make = (more = {}) => new Chat({ id, transport: new DefaultChatTransport({ api, fetch: noted, body: more.body }), onData: (d) => data.push(d), onError: (e) => errors.push(String(e)), onFinish: (f) => { (out.finishes ??= []).push({ isAbort: f.isAbort, isDisconnect: f.isDisconnect, isError: f.isError, finishReason: f.finishReason }); }, ...more });
const until = async (f) => { while (!f()) await sleep(10); };
let chat = make();
const say = (text) => chat.sendMessage({ text });
switch (scenario) {
  case "chat": await say("think"); await say("hello"); break;
  case "tools": await say("tools"); break;
  case "state": await say("state"); break;
  case "media": await say("media"); break;
  case "files": await chat.sendMessage({ text: "messages", files: [{ type: "file", mediaType: "image/png", filename: "a.png", url: "data:image/png;base64,AAAA" }] }); break;
  case "front-end": {
    chat = make({ sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls, onToolCall: ({ toolCall }) => { chat.addToolOutput({ tool: toolCall.toolName, toolCallId: toolCall.toolCallId, output: "yes, do" }); } });
    await say("call of the front end");
    await until(() => chat.messages.at(-1).parts.at(-1)?.type === "text" && chat.status === "ready");
    break;
  }
  case "abort": {
    const running = say("slow");
    await until(() => chat.messages.at(-1)?.parts?.some((p) => p.type === "text" && p.text.includes("begin")) && chat.status === "streaming");
    await chat.stop();
    await running;
    break;
  }
  case "error": await say("break"); break;
  case "approve":
  case "deny": {
    chat = make({ sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses });
    await say("approve");
    const part = chat.messages.at(-1).parts.find((p) => p.state === "approval-requested");
    out.asked = structuredClone(part);
    await chat.addToolApprovalResponse({ id: part.approval.id, approved: scenario === "approve", reason: "because" });
    await until(() => chat.messages.at(-1).parts.some((p) => p.type === "text" && p.text.startsWith("approved:")) && chat.status === "ready");
    break;
  }
  case "choose": {
    chat = make({ sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls });
    await say("choose");
    let part = chat.messages.at(-1).parts.find((p) => p.state === "approval-requested");
    await chat.addToolOutput({ tool: part.toolName, toolCallId: part.toolCallId, output: "red" });
    await until(() => chat.messages.at(-1).parts.some((p) => p.state === "approval-requested" && p.toolCallId !== part.toolCallId) && chat.status === "ready");
    chat.sendAutomaticallyWhen = undefined;
    const second = chat.messages.at(-1).parts.find((p) => p.state === "approval-requested");
    await chat.addToolApprovalResponse({ id: second.approval.id, approved: true });
    await chat.sendMessage();
    break;
  }
  case "resume": {
    chat = make({ body: { on_disconnect: "continue" } });
    say("ticks");
    await until(() => chat.messages.at(-1)?.parts?.some((p) => p.type === "text" && p.text.includes("t5 ")));
    await chat.stop();
    const again = make();
    again.messages = chat.messages;
    chat = again;
    await chat.resumeStream();
    break;
  }
  case "nothing": await chat.resumeStream(); break;
  case "read": {
    const stream = await new DefaultChatTransport({ api, fetch: noted }).sendMessages({ chatId: id, trigger: "submit-message", messages: [{ id: "1", role: "user", parts: [{ type: "text", text: "tools" }] }] });
    for await (const message of readUIMessageStream({ stream })) out.read = message;
    break;
  }
  case "refused": chat = new Chat({ id: "x".repeat(300), transport: new DefaultChatTransport({ api, fetch: noted }), onError: (e) => errors.push(String(e)) }); await say("hello"); break;
}
console.log(JSON.stringify({ ...out, status: chat.status, messages: chat.messages, data, errors }));
