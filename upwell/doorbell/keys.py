"""Every Redis key and channel of ours, each built by one function. Nothing else builds one.

    key                                    type    lives              written by, and what for
    upwell:{index}:generation              string  a week             a ring, or a drain first of all: part of the next job's id
    upwell:{index}:lease                   string  lease_ttl_s        the worker that drains the index: its token
    upwell:{index}:knock                   string  an hour            a drain that found the lease taken: look again
    upwell:{index}:applying                string  10 s               the drain: the position it is working towards
    upwell:{index}:tries                   string  an hour            a drain: how many were begun since one came to an end
    upwell:{index}:tries:{shard}           string  a minute           a compaction: the same of merges of a shard
    upwell:{index}:compacts:{shard}        string  lease_ttl_s        the worker that merges segments of a shard: its token
    upwell:{index}:asked:{shard}           string  ASKED_TTL_S        a merge was enqueued a moment ago
    upwell:{index}:part:{token}:{shard}    string  CLAIM_TTL_S        the worker that writes a part of a batch: nobody else need
    upwell:{index}:embeds:{position}       string  EMBED_CLAIM_TTL_S  the worker that makes vectors of an entry's texts
    upwell:{index}:embed-asked             string  EMBED_ASKED_TTL_S  jobs for that were enqueued a moment ago
    upwell:{index}:tells:{webhook}         string  lease_ttl_s        the worker that delivers for a webhook: its token
    upwell:{index}:swept                   string  sweep_interval_s   a sweep: this index is seen to for now
    upwell:{index}:collected               string  a tenth of grace_s its garbage was collected a moment ago
    upwell:committed                       channel –                  a drain, after each commit

arq adds its own: ``upwell:drain``, ``upwell:compact`` and ``upwell:embed`` (queues, sorted sets that are there while they have members), ``arq:job:*``,
``arq:in-progress:*``, ``arq:retry:*`` and the queue's health check, all with a time to live. The braces are a hash tag: an
index's keys share a slot.
"""

from __future__ import annotations

#: The arq queue of drains, and its function.
DRAIN_QUEUE = "upwell:drain"
DRAIN_JOB = "drain"
#: The function that helps with a batch, on the same queue: it is as urgent.
HELP_JOB = "help"
#: The arq queue of compactions, which take long and are never urgent, and its function.
COMPACTION_QUEUE = "upwell:compact"
COMPACTION_JOB = "compact"

#: The arq queue of texts that vectors are made of ahead, and its function.
EMBED_QUEUE = "upwell:embed"
EMBED_JOB = "embed"

COMMITTED_CHANNEL = "upwell:committed"

GENERATION_TTL_S = 7 * 24 * 3600
KNOCK_TTL_S = 3600
TRIES_TTL_S = 3600
#: So long a merge is left alone that broke several times since.
MERGE_TRIES_TTL_S = 60

ASKED_TTL_S = 5
CLAIM_TTL_S = 600
EMBED_CLAIM_TTL_S = 3
EMBED_ASKED_TTL_S = 1

#: Keys that may stay without a time to live: the queues themselves.
PERMANENT = frozenset({DRAIN_QUEUE, COMPACTION_QUEUE, EMBED_QUEUE})


def generation_key(index_id: str) -> str:
    """What the id of the next drain job of an index ends in."""
    return f"upwell:{{{index_id}}}:generation"


def lease_key(index_id: str) -> str:
    """Who drains an index just now."""
    return f"upwell:{{{index_id}}}:lease"


def knock_key(index_id: str) -> str:
    """Somebody came to drain an index while another did."""
    return f"upwell:{{{index_id}}}:knock"


def compaction_lease_key(index_id: str, shard: int) -> str:
    """Who merges segments of a shard just now."""
    return f"upwell:{{{index_id}}}:compacts:{shard}"


def asked_key(index_id: str, shard: int) -> str:
    """A merge of a shard's segments was asked for a moment ago."""
    return f"upwell:{{{index_id}}}:asked:{shard}"


def claim_key(index_id: str, token: str, shard: int) -> str:
    """Somebody writes this part of a batch."""
    return f"upwell:{{{index_id}}}:part:{token}:{shard}"


def embed_claim_key(index_id: str, position: int) -> str:
    """Somebody makes vectors of this entry's texts."""
    return f"upwell:{{{index_id}}}:embeds:{position}"


def embed_asked_key(index_id: str) -> str:
    """Others were asked a moment ago to make vectors of texts that wait."""
    return f"upwell:{{{index_id}}}:embed-asked"


def tells_key(index_id: str, webhook: str) -> str:
    """Who delivers for a webhook just now."""
    return f"upwell:{{{index_id}}}:tells:{webhook}"


def applying_key(index_id: str) -> str:
    """How far the drain under way will get."""
    return f"upwell:{{{index_id}}}:applying"


def tries_key(index_id: str) -> str:
    """How many batches were begun since one came to an end."""
    return f"upwell:{{{index_id}}}:tries"


def merge_tries_key(index_id: str, shard: int) -> str:
    """How many merges of a shard were begun since one came to an end."""
    return f"upwell:{{{index_id}}}:tries:{shard}"


def swept_key(index_id: str) -> str:
    """A sweep has seen to this index a moment ago."""
    return f"upwell:{{{index_id}}}:swept"


def collected_key(index_id: str) -> str:
    """The garbage of this index was collected a moment ago."""
    return f"upwell:{{{index_id}}}:collected"


def drain_job_id(index_id: str, generation: str) -> str:
    """The arq job id: one per index and generation, so that one job at most waits however often it is rung for."""
    return f"drain:{index_id}:{generation}"


def compaction_job_id(index_id: str, shard: int, token: str) -> str:
    """The arq job id of one asking for a merge. Never the same twice: arq keeps a dead worker's job from others for long."""
    return f"compact:{index_id}:{shard}:{token}"


def embed_job_id(index_id: str, token: str, number: int) -> str:
    """The arq job id of one asking for vectors of texts that wait."""
    return f"embed:{index_id}:{token}:{number}"


def help_job_id(index_id: str, token: str, number: int) -> str:
    """The arq job id of one asking for help with a batch."""
    return f"help:{index_id}:{token}:{number}"
