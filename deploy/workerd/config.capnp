# A Worker with env.VECTORIZE, served by Upwell:
#
#     workerd serve config.capnp
#
# Say here which index, and with which token.

using Workerd = import "/workerd/workerd.capnp";

const upwellHeaders :List(Workerd.HttpOptions.Header) = [
  (name = "Authorization", value = "Bearer choose-a-long-random-one"),
  (name = "Upwell-Account", value = "default"),
  (name = "Upwell-Index", value = "tour"),
];

const config :Workerd.Config = (
  services = [
    (name = "worker", worker = .worker),
    (name = "upwell", external = (address = "127.0.0.1:8000", http = (injectRequestHeaders = .upwellHeaders))),
  ],
  sockets = [(name = "http", address = "127.0.0.1:8787", http = (), service = "worker")],
);

const worker :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed "worker.js")],
  compatibilityDate = "2026-01-01",
  bindings = [
    (
      name = "VECTORIZE",
      wrapped = (
        moduleName = "cloudflare-internal:vectorize-api",
        innerBindings = [
          (name = "fetcher", service = "upwell"),
          (name = "indexId", text = "tour"),
          (name = "indexVersion", text = "v2"),
          (name = "useNdJson", json = "true"),
        ],
      ),
    ),
  ],
);
