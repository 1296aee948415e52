// Calls Cloudflare's SDK as told: a line of JSON in, a line of JSON out, until the input ends.
//
//   in   {"method": "vectorize.indexes.upsert", "args": ["docs", {"account_id": "…"}], "body": {"as": "stream", "text": "…"}}
//   out  {"returned": …} or {"thrown": {"name": "NotFoundError", "status": 404, "errors": […]}}
//
// Address and token come from the SDK's own variables, CLOUDFLARE_BASE_URL and CLOUDFLARE_API_TOKEN.
import readline from "node:readline";
import { Readable } from "node:stream";
import Cloudflare, { toFile } from "cloudflare";

const client = new Cloudflare({ maxRetries: 0 });

// What its users pass as the body of an upload.
const BODIES = {
  string: (text) => text,
  buffer: (text) => Buffer.from(text),
  stream: (text) => Readable.from(text.match(/[^]{1,10}/g).map((piece) => Buffer.from(piece))),
  file: (text) => toFile(Buffer.from(text), "vectors.ndjson"),
  blob: (text) => new Blob([text]),
  array: (text) => text.split("\n").map((line) => JSON.parse(line)),
};

async function call({ method, args, body }) {
  const names = method.split(".");
  const last = names.pop();
  const owner = names.reduce((at, name) => at[name], client);
  if (body) args.at(-1).body = await BODIES[body.as](body.text);
  const returned = owner[last](...args);
  return Symbol.asyncIterator in returned ? Array.fromAsync(returned) : await returned;
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = { returned: await call(JSON.parse(line)) };
  } catch (error) {
    answer = { thrown: { name: error.constructor.name, message: error.message, status: error.status, errors: error.errors } };
  }
  console.log(JSON.stringify(answer));
}
