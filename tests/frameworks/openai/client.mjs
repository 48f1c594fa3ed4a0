// OpenAI's client for Node against an agent: node client.mjs BASE_URL. Prints one JSON object.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "x", maxRetries: 0 });
const found = {};

const response = await client.responses.create({ model: "m", input: "hello" });
found.text = response.output_text;
found.usage = response.usage.total_tokens;
found.retrieved = (await client.responses.retrieve(response.id)).output_text;

for (const what of ["hello", "think", "own-tools", "refuse", "call f g", "stream-call", "show", "approve", "empty"]) {
  const stream = client.responses.stream({ model: "m", input: what });
  const types = [];
  for await (const event of stream) types.push(event.type.replace("response.", ""));
  const final = await stream.finalResponse();
  found[what] = { types, output: final.output.map((item) => item.type), text: final.output_text };
}

const begun = await client.responses.create({ model: "m", input: "slow", background: true });
const numbers = [];
for await (const event of await client.responses.retrieve(begun.id, { stream: true })) {
  numbers.push(event.sequence_number);
  if (numbers.length === 7) break;
}
for await (const event of await client.responses.retrieve(begun.id, { stream: true, starting_after: 6 })) {
  numbers.push(event.sequence_number);
}
found.gapless = numbers.every((number, place) => number === place);
found.background = (await client.responses.retrieve(begun.id)).status;
const endless = await client.responses.create({ model: "m", input: "endless", background: true });
found.cancelled = (await client.responses.cancel(endless.id)).status;

const tools = [{ type: "function", name: "weather", parameters: {}, strict: false }];
const asked = await client.responses.create({ model: "m", input: "call weather", tools });
const call = asked.output.find((item) => item.type === "function_call");
const output = { type: "function_call_output", call_id: call.call_id, output: "sunny" };
found.tool = (await client.responses.create({ model: "m", input: [output], previous_response_id: asked.id })).output_text;

const waits = await client.responses.create({ model: "m", input: "approve" });
const question = waits.output.at(-1);
const approve = { type: "mcp_approval_response", approval_request_id: question.id, approve: true };
found.approved = (
  await client.responses.stream({ input: [approve], previous_response_id: waits.id }).finalResponse()
).output_text;

const messages = [{ role: "user", content: "hello" }];
const completion = await client.chat.completions.create({ model: "m", messages });
found.chat = completion.choices[0].message.content;
const stream = client.chat.completions.stream({ model: "m", messages, stream_options: { include_usage: true } });
found.streamed = await stream.finalContent();
found.chatUsage = (await stream.totalUsage()).total_tokens;
const calls = client.chat.completions.stream({ model: "m", messages: [{ role: "user", content: "stream-call" }] });
found.arguments = (await calls.finalChatCompletion()).choices[0].message.tool_calls[0].function.arguments;
const runner = client.chat.completions.runTools({
  model: "m",
  messages: [{ role: "user", content: "call weather" }],
  tools: [
    {
      type: "function",
      function: { name: "weather", parse: JSON.parse, parameters: {}, function: ({ city }) => `sunny in ${city}` },
    },
  ],
});
found.ran = await runner.finalContent();

found.models = (await client.models.list()).data.map((model) => model.id);
try {
  await client.responses.retrieve("resp_unknown1");
} catch (error) {
  found.missing = [error.constructor.name, error.status, error.code];
}
try {
  await client.chat.completions.create({ model: "m", messages, n: 3 });
} catch (error) {
  found.wrong = [error.constructor.name, error.status, error.param];
}
const abort = new AbortController();
const aborted = await client.responses.create(
  { model: "m", input: "endless", stream: true, conversation: process.argv[3] },
  { signal: abort.signal },
);
for await (const event of aborted) if (event.type === "response.output_text.delta") abort.abort();

console.log(JSON.stringify(found));
