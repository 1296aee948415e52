// Calls the HTTP clients of Milvus's SDK as told: a line of JSON in, a line of JSON out, until the input ends.
//
//   in   {"version": 1 or 2, "config": {"endpoint": "http://…", "token": "…"}, "method": "insert", "args": [{…}]}
//   out  {"returned": …} or {"thrown": {"name": "HttpError", "message": "…", "status": 404}}
//
// The method "mutation" returns the X-Mutation-Id of the last answer, which the clients do not show: they take a fetch of one's own,
// and here it is the usual one with a look at the headers.
import readline from "node:readline";
import { HttpClient } from "@zilliz/milvus2-sdk-node";
import old from "milvus-sdk-v1";

const CLIENTS = { 1: old.HttpClient, 2: HttpClient };
let mutation = null;

async function watched(...request) {
  const response = await fetch(...request);
  mutation = response.headers.get("X-Mutation-Id");
  return response;
}

async function call({ version, config, method, args }) {
  if (method === "mutation") return mutation;
  return new CLIENTS[version]({ fetch: watched, ...config })[method](...args);
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = { returned: await call(JSON.parse(line)) };
  } catch (error) {
    answer = { thrown: { name: error.name, message: error.message, status: error.status } };
  }
  console.log(JSON.stringify(answer));
}
