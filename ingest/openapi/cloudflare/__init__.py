"""The table of the Cloudflare door's operations, in the order of its routes."""

from ingest.openapi.cloudflare import (
    binding,
    export,
    indexes,
    metadata_indexes,
    mutations,
    people,
    vectors,
    webhooks,
)

OPERATIONS = (
    *people.OPERATIONS,
    *indexes.OPERATIONS,
    *vectors.OPERATIONS,
    *export.OPERATIONS,
    *metadata_indexes.OPERATIONS,
    *mutations.OPERATIONS,
    *webhooks.OPERATIONS,
    *binding.OPERATIONS,
)
TAGS = [
    {"name": "people", "description": "Cloudflare: who one is."},
    {"name": "indexes", "description": "Cloudflare Vectorize: indexes."},
    {"name": "vectors", "description": "Cloudflare Vectorize: vectors."},
    {"name": "export", "description": "Beyond Vectorize: all vectors of an index."},
    {"name": "metadata indexes", "description": "Cloudflare Vectorize: what filters may rely on."},
    {"name": "mutations", "description": "Beyond Vectorize: what became of a mutation."},
    {"name": "webhooks", "description": "Beyond Vectorize: being told so."},
    {
        "name": "binding",
        "description": "Cloudflare Workers' binding to Vectorize: results without envelopes.",
    },
]
