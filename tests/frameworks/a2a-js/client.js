// A client made with the JavaScript SDK of A2A. Does one thing, and prints what it has seen as JSON.
//
// node client.js URL BINDING SCENARIO ARGUMENTS...      the binding may be `JSONRPC 0.3`
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { basename } from "node:path";
import {
  ClientFactory,
  DefaultAgentCardResolver,
  JsonRpcTransportFactory,
  RestTransportFactory,
} from "@a2a-js/sdk/client";
import { Role, TaskState } from "@a2a-js/sdk";

const [url, binding, scenario, ...args] = process.argv.slice(2);

const stateOf = (number) => TaskState[number].replace("TASK_STATE_", "").toLowerCase().replace("_", "-");
const textOf = (holder) =>
  holder.parts.map((part) => (part.content?.$case === "text" ? part.content.value : "")).join("");

function asked(text, task = "", context = "", configuration = {}) {
  return {
    tenant: "",
    message: {
      messageId: randomUUID(),
      contextId: context,
      taskId: task,
      role: Role.ROLE_USER,
      parts: [{ content: { $case: "text", value: text }, metadata: undefined, filename: "", mediaType: "" }],
      metadata: undefined,
      extensions: [],
      referenceTaskIds: [],
    },
    configuration: {
      acceptedOutputModes: [],
      taskPushNotificationConfig: undefined,
      returnImmediately: false,
      ...configuration,
    },
    metadata: undefined,
  };
}

class Seen {
  kinds = [];
  states = [];
  text = "";
  task = "";
  context = "";
  said = "";

  take({ $case: kind, value: item }) {
    this.kinds.push(kind.replace("Update", "_update"));
    if (kind === "task") {
      [this.task, this.context] = [item.id, item.contextId];
      this.#state(item.status);
      this.text = item.artifacts.map(textOf).join("");
    } else if (kind === "statusUpdate") {
      this.#state(item.status);
    } else if (kind === "artifactUpdate") {
      this.text += textOf(item.artifact);
    } else {
      this.said = textOf(item);
    }
    return this;
  }

  #state(status) {
    this.states.push(stateOf(status.state));
    if (status.message) this.said = textOf(status.message);
  }

  report() {
    return { ...this, state: this.states.at(-1) ?? null };
  }
}

async function connect() {
  const legacyCompat = { enabled: binding.endsWith(" 0.3") };
  const factory = new ClientFactory({
    transports: [new JsonRpcTransportFactory({ legacyCompat }), new RestTransportFactory({ legacyCompat })],
    preferredTransports: [binding.split(" ")[0]],
    cardResolver: new DefaultAgentCardResolver({ legacyCompat }),
  });
  return factory.createFromUrl(url);
}

async function read(stream, seen) {
  for await (const response of stream) seen.take(response.payload);
  return seen;
}

async function sent(client, request) {
  const result = await client.sendMessage(request);
  return new Seen().take({ $case: "status" in result ? "task" : "message", value: result });
}

async function refused(call) {
  try {
    await call;
  } catch (error) {
    // The error of a stream of 0.3 is the cause of another one.
    return (error.cause ?? error).name.replace(/Error$/, "");
  }
  return "nothing";
}

const scenarios = {
  async card() {
    const card = await (await connect()).getAgentCard();
    return { name: card.name, streaming: card.capabilities.streaming, skills: card.skills.map((each) => each.id) };
  },

  async send(text, task, context) {
    return (await sent(await connect(), asked(text, task, context))).report();
  },

  async stream(text, task, context) {
    const client = await connect();
    return (await read(client.sendMessageStream(asked(text, task, context)), new Seen())).report();
  },

  // Leave a stream in its middle, and read the rest by a subscription.
  async subscribe(gate) {
    const client = await connect();
    const first = new Seen();
    for await (const response of client.sendMessageStream(asked(`gate ${basename(gate)}`))) {
      if (first.take(response.payload).text) break;
    }
    const again = new Seen();
    for await (const response of client.resubscribeTask({ tenant: "", id: first.task })) {
      again.take(response.payload);
      writeFileSync(gate, "");
    }
    return { ...again.report(), before: first.text };
  },

  // Print `cut me` once; when the connection has failed, read the rest by a subscription.
  async cut(number) {
    const client = await connect();
    const seen = new Seen();
    let failed = false;
    try {
      for await (const response of client.sendMessageStream(asked(`steps ${number}`))) {
        seen.take(response.payload);
        if (seen.text.length === 20) console.log("cut me");
      }
    } catch {
      failed = true;
    }
    const before = seen.text;
    await read(client.resubscribeTask({ tenant: "", id: seen.task }), seen);
    return { ...seen.report(), failed, before };
  },

  async cancel() {
    const client = await connect();
    const seen = new Seen();
    let canceled;
    for await (const response of client.sendMessageStream(asked("wait"))) {
      seen.take(response.payload);
      if (seen.text && !canceled) {
        canceled = await client.cancelTask({ tenant: "", id: seen.task, metadata: undefined });
      }
    }
    const got = await client.getTask({ tenant: "", id: seen.task });
    return { ...seen.report(), canceled: stateOf(canceled.status.state), got: stateOf(got.status.state) };
  },

  async list() {
    const client = await connect();
    const seen = [];
    for (const word of ["one", "two", "three"]) seen.push(await sent(client, asked(`say ${word}`)));
    const query = {
      tenant: "",
      contextId: "",
      status: TaskState.TASK_STATE_UNSPECIFIED,
      pageToken: "",
      statusTimestampAfter: undefined,
    };
    const page = await client.listTasks({ ...query, pageSize: 2 });
    const rest = await client.listTasks({ ...query, pageSize: 2, pageToken: page.nextPageToken });
    const mine = await client.listTasks({ ...query, contextId: seen[0].context, includeArtifacts: true });
    return {
      pages: [page.tasks.length, rest.tasks.length],
      total: page.totalSize,
      mine: mine.tasks.map((task) => textOf(task.artifacts[0])),
    };
  },

  async push() {
    const tokens = new Set();
    let completed;
    const done = new Promise((resolve) => (completed = resolve));
    const hook = createServer(async (request, response) => {
      let body = "";
      for await (const piece of request) body += piece;
      response.end();
      tokens.add(request.headers["x-a2a-notification-token"]);
      if (/completed/i.test(body)) completed();
    });
    await once(hook.listen(0, "127.0.0.1"), "listening");
    const config = {
      tenant: "",
      id: "c1",
      taskId: "",
      url: `http://127.0.0.1:${hook.address().port}/hook`,
      token: "sesame",
      authentication: undefined,
    };
    const client = await connect();
    const seen = await sent(client, asked("say hi", "", "", { taskPushNotificationConfig: config }));
    await done;
    hook.closeAllConnections();
    hook.close();
    const kept = await client.getTaskPushNotificationConfig({ tenant: "", taskId: seen.task, id: "c1" });
    return { tokens: [...tokens].sort(), kept: kept.url === config.url };
  },

  async errors() {
    const client = await connect();
    const done = await sent(client, asked("say hi"));
    return {
      unknown: await refused(client.getTask({ tenant: "", id: "no-such-task" })),
      ended: await refused(client.cancelTask({ tenant: "", id: done.task, metadata: undefined })),
      terminal: await refused(client.sendMessage(asked("say more", done.task))),
      subscribed: await refused(read(client.resubscribeTask({ tenant: "", id: done.task }), new Seen())),
    };
  },
};

console.log(JSON.stringify(await scenarios[scenario](...args)));
