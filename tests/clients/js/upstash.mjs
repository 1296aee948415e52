// Calls Upstash's SDK as told: a line of JSON in, a line of JSON out, until the input ends.
//
//   in   {"url": "http://…", "method": "upsert", "args": [{"id": "a", "vector": [0.1, 0.2]}], "namespace": "ns"?, "token": "…"?}
//        {"url": "…", "method": "resumableQuery", "args": […]}, and then {"method": "fetchNext" or "stop", "args": […]}
//   out  {"returned": …} or {"thrown": {"name": "UpstashError", "message": "…"}}
//
// What has no value is left out of JSON, so that null is only there where the SDK returned null. The token comes from
// UPSTASH_VECTOR_REST_TOKEN, the SDK's own variable, unless one is given.
import readline from "node:readline";
import { Index } from "@upstash/vector";

let resumable;

async function call({ url, token, method, args, namespace }) {
  if (method === "fetchNext" || method === "stop") return resumable[method](...args);
  const index = new Index({ url, ...(token && { token }), retry: false });
  const returned = await (namespace === undefined ? index : index.namespace(namespace))[method](...args);
  if (method !== "resumableQuery") return returned;
  resumable = returned;
  return returned.result;
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = { returned: await call(JSON.parse(line)) };
  } catch (error) {
    answer = { thrown: { name: error.name, message: error.message } };
  }
  console.log(JSON.stringify(answer));
}
