// A plugin of miniflare, which wrangler dev runs Workers in: gives them the real Vectorize binding of workerd, and sends what
// it asks to Upwell. See README.md.

const NAME = "upwell-vectorize";

// What wrangler.jsonc says of our bindings. Miniflare 4 hands plugins their bindings, miniflare 5 the whole Worker.
function bindings(options) {
  if (Array.isArray(options)) return options;
  return Object.entries(options.config.env)
    .filter(([, { dev }]) => dev?.plugin?.name === NAME)
    .map(([name, { dev }]) => ({ name, options: dev.options }));
}

function need(binding, what, value) {
  if (value) return value;
  throw new Error(`${NAME}: the binding ${binding} has no ${what}`);
}

function upwell(name, options) {
  const { UPWELL_URL, UPWELL_TOKEN, UPWELL_ACCOUNT } = process.env;
  const url = new URL(options.url ?? UPWELL_URL ?? "http://127.0.0.1:8000");
  if (url.protocol !== "http:") throw new Error(`${NAME}: expected an http:// address, got ${url}`);
  const token = need(name, "token; set UPWELL_TOKEN", options.token ?? UPWELL_TOKEN);
  return {
    address: url.host,
    http: {
      injectRequestHeaders: [
        { name: "Authorization", value: `Bearer ${token}` },
        { name: "Upwell-Account", value: options.account ?? UPWELL_ACCOUNT ?? "default" },
        { name: "Upwell-Index", value: need(name, "index_name", options.index_name) },
      ],
    },
  };
}

export const plugins = {
  [NAME]: {
    getBindings: (options) =>
      bindings(options).map(({ name, options: { index_name } }) => ({
        name,
        wrapped: {
          moduleName: "cloudflare-internal:vectorize-api",
          innerBindings: [
            { name: "fetcher", service: { name: `${NAME}:${name}` } },
            { name: "indexId", text: index_name },
            { name: "indexVersion", text: "v2" },
            { name: "useNdJson", json: "true" },
          ],
        },
      })),
    getNodeBindings: () => ({}),
    getServices: ({ options }) =>
      bindings(options).map(({ name, options }) => ({ name: `${NAME}:${name}`, external: upwell(name, options) })),
  },
};
