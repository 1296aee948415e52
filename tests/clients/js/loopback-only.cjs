// Loaded into every client before anything else: a connection to another machine is refused, and written down for the test.
const fs = require("node:fs");
const net = require("node:net");

const THIS_MACHINE = new Set(["127.0.0.1", "::1", "localhost"]);
const connect = net.Socket.prototype.connect;

net.Socket.prototype.connect = function (...given) {
  const first = Array.isArray(given[0]) ? given[0][0] : given[0];
  const options = typeof first === "object" ? first : { port: first, host: given[1] };
  const host = options.host ?? "localhost";
  if (options.path || THIS_MACHINE.has(host)) return connect.apply(this, given);
  fs.appendFileSync(process.env.REFUSED_CONNECTIONS, `${host}\n`);
  process.nextTick(() => this.destroy(new Error(`refused: ${host} is another machine`)));
  return this;
};
