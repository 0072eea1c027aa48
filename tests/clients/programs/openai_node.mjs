// The OpenAI SDK for Node.js.
import OpenAI from "openai";
import { apiKey, baseURL, embeddingModel, feature, model, must, parameters } from "./features.mjs";

const client = new OpenAI({ apiKey, baseURL });
const messages = [{ role: "user", content: "Where is the Eiffel Tower?" }];

await feature("models", async () => {
  const found = [];
  for await (const one of client.models.list()) found.push(one.id);
  must(found.includes(model), `no ${model} in ${found}`);
});
await feature("chat", async () => {
  const answer = await client.chat.completions.create({ model, messages, max_tokens: 16 });
  must(answer.choices[0].message.content, "no text");
});
await feature("stream", async () => {
  const stream = await client.chat.completions.create({ model, messages, max_tokens: 16, stream: true });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
  must(text, "no text");
});
await feature("usage in the stream", async () => {
  const stream_options = { include_usage: true };
  const stream = await client.chat.completions.create({ model, messages, max_tokens: 16, stream: true, stream_options });
  let last;
  for await (const chunk of stream) last = chunk;
  must(last.choices.length === 0 && last.usage.completion_tokens > 0, "no usage at the end");
});
await feature("tools", async () => {
  const tools = [{ type: "function", function: { name: "weather", description: "Tells the weather", parameters } }];
  const runner = client.chat.completions.stream({ model, messages, tools, tool_choice: "required", max_tokens: 64 });
  const answer = await runner.finalChatCompletion();
  must(answer.choices[0].message.tool_calls[0].function.name === "weather", "no call");
});
await feature("structured output", async () => {
  const response_format = { type: "json_schema", json_schema: { name: "place", schema: parameters, strict: true } };
  const answer = await client.chat.completions.create({ model, messages, response_format, max_tokens: 64 });
  must(JSON.parse(answer.choices[0].message.content).city, "no city");
});
await feature("embeddings", async () => {
  const answer = await client.embeddings.create({ model: embeddingModel, input: ["a", "b"] });
  must(answer.data.length === 2 && answer.data[0].embedding.length > 1, "no embeddings");
});
await feature("errors", async () => {
  const wrong = new OpenAI({ apiKey: "sk-wrong", baseURL, maxRetries: 0 });
  const error = await wrong.chat.completions.create({ model, messages }).catch((raised) => raised);
  must(error instanceof OpenAI.AuthenticationError && error.code === "invalid_api_key", `${error}`);
});
