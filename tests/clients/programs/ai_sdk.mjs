// Vercel's AI SDK with its provider for OpenAI-compatible servers.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, jsonSchema, Output, streamText, tool } from "ai";
import { apiKey, baseURL, embeddingModel, feature, model, must, parameters } from "./features.mjs";

const provider = createOpenAICompatible({
  name: "cloudach",
  apiKey,
  baseURL,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const prompt = "Where is the Eiffel Tower?";

await feature("chat", async () => {
  const { text } = await generateText({ model: provider(model), prompt, maxOutputTokens: 16 });
  must(text, "no text");
});
await feature("stream", async () => {
  let text = "";
  for await (const part of streamText({ model: provider(model), prompt, maxOutputTokens: 16 }).textStream) text += part;
  must(text, "no text");
});
await feature("usage in the stream", async () => {
  const { usage } = streamText({ model: provider(model), prompt, maxOutputTokens: 16 });
  must((await usage).outputTokens > 0, "no usage");
});
await feature("tools", async () => {
  const weather = tool({ description: "Tells the weather", inputSchema: jsonSchema(parameters) });
  const asked = { model: provider(model), prompt, tools: { weather }, toolChoice: "required", maxOutputTokens: 64 };
  const { toolCalls } = await generateText(asked);
  must(toolCalls[0].toolName === "weather" && toolCalls[0].input.city, "no call");
});
await feature("structured output", async () => {
  const output = Output.object({ schema: jsonSchema(parameters) });
  const made = await generateText({ model: provider(model), prompt, output, maxOutputTokens: 64 });
  must(made.output.city, "no city");
});
await feature("embeddings", async () => {
  const { embeddings } = await embedMany({ model: provider.embeddingModel(embeddingModel), values: ["a", "b"] });
  must(embeddings.length === 2, "no embeddings");
});
