// Each program here tries a client's features one by one, and prints a line of JSON for each.
export const baseURL = process.env.CLOUDACH_BASE_URL;
export const apiKey = process.env.CLOUDACH_API_KEY;
export const model = process.env.CLOUDACH_MODEL;
export const embeddingModel = process.env.CLOUDACH_EMBEDDING_MODEL;

export const parameters = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};

export async function feature(name, check) {
  let said = "";
  try {
    await check();
  } catch (error) {
    said = `${error?.name}: ${error?.message}`.slice(0, 500);
  }
  console.log(JSON.stringify({ feature: name, works: said === "", said }));
}

export function must(fact, what) {
  if (!fact) throw new Error(what);
}
