"""Every knob, read once into a frozen value.

Settings are data and never parts: what does work (store, clock, bell …) is passed in beside them. Each field can be set
by the environment variable ``UPWELL_<FIELD>`` and, where the command line names it, by an option.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from upwell.embed.configuration import DenseModels, SparseModels
from upwell.rate import RateText

#: Where a front end or worker on its own looks for Redis when it is told nothing else.
DEFAULT_REDIS = "redis://127.0.0.1:6379/0"


class Settings(BaseSettings):
    """What an operator may choose. Sizes are in bytes, times in seconds."""

    # What was given is not repeated when it is wrong: it may be a token, or hold a password.
    model_config = SettingsConfigDict(
        env_prefix="UPWELL_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    host: str = Field("127.0.0.1", description="address that the front end binds to")
    port: int = Field(
        8000, ge=0, le=65535, description="port that the front end binds to; 0 takes a free one"
    )
    data: Path = Field(Path("./data"), description="directory for the store, the admin token and caches")
    workers: int = Field(1, ge=1, le=256, description="worker processes that `upwell serve` starts")
    redis: str | None = Field(
        None, description="redis://, rediss:// or unix:// address; none: an embedded Valkey"
    )
    store: str | None = Field(None, description="file:///path of the store; none: a directory under `data`")
    token: str | None = Field(
        None, min_length=8, description="bootstrap admin token; none: one is made and kept"
    )
    token_previous: str | None = Field(
        None,
        min_length=8,
        description="the bootstrap admin token before: as good, while it is being replaced",
    )
    connections_max: int = Field(
        1_000, ge=1, description="connections that one front end holds at once; more are turned away with 503"
    )
    idle_s: float = Field(
        75.0,
        gt=0,
        description="how long a connection may take to send the next request's head, silence before it included",
    )
    body_idle_s: float = Field(
        30.0, gt=0, description="how long a request's body may stand still, or bring less than 1 KiB"
    )

    shards: int = Field(
        2, ge=1, le=64, description="shards of an index that does not ask for a number itself"
    )
    dimensions_max: int = Field(1536, ge=1, le=5376, description="largest dimension an index may have")
    request_vectors_max: int = Field(5_000, ge=1, description="vectors in one insert or upsert request")
    request_bytes_max: int = Field(
        100_000_000, ge=1_024, description="bytes of a request body, sent or inflated"
    )
    wait_s_max: float = Field(
        60.0, gt=0, description="longest time that a status or `after=` request may wait"
    )

    backlog_mutations_max: int = Field(
        100_000,
        ge=1,
        description="mutations of one index that may wait to be applied; beyond, writes get 429",
    )
    backlog_bytes_max: int = Field(
        8 << 30, ge=1, description="bytes of columns that may wait likewise; beyond, writes get 429"
    )
    token_rate: RateText | None = Field(
        None,
        description="requests that one token may make on one front end, as in 1200/5minutes; none: any number",
    )

    batch_vectors_max: int = Field(200_000, ge=1, description="vectors that one commit applies at most")
    batch_mutations_max: int = Field(1_000, ge=1, description="mutations that one commit applies at most")
    batch_bytes_max: int = Field(
        256 << 20, ge=1, description="bytes of columns that one commit applies at most"
    )
    apply_tries_max: int = Field(
        3,
        ge=1,
        description="times that a batch is tried before the mutation that breaks it is found and fails",
    )
    compaction_jobs: int = Field(1, ge=1, description="compactions that one worker process runs at once")
    compaction_fanout: int = Field(
        8, ge=2, description="segments of one size that a shard gathers before they are merged into one"
    )
    compaction_rows_max: int = Field(2_000_000, ge=1, description="rows of a merged segment")
    compaction_settle_s: float = Field(
        2.0,
        ge=0,
        description="how long an index rests before its segments are merged further than they must be",
    )
    stall_segments: int = Field(
        128,
        ge=8,
        description="segments of a shard beyond which uploads are refused until compaction catches up",
    )
    recall: float = Field(
        0.98,
        gt=0,
        le=1,
        description="share of the true nearest vectors that a query finds; 1 compares every vector",
    )
    lease_ttl_s: float = Field(3.0, gt=0, description="how long a silent worker keeps an index to itself")
    sweep_interval_s: float = Field(
        1.0, gt=0, description="how often workers look for work that no bell announced"
    )
    grace_s: float = Field(
        600.0,
        gt=0,
        description="how long an applied log entry or an old manifest is kept; no batch or merge may take half as long",
    )
    results_s: float = Field(
        3600.0, gt=0, description="how long status tells a visible mutation's counts and times"
    )
    failed_s: float = Field(
        30 * 86_400.0, gt=0, description="how long a failed mutation is kept, to be looked at and tried again"
    )
    idempotency_s: float = Field(
        86_400.0, gt=0, description="how long a request with an `Idempotency-Key` is remembered"
    )
    metadata_backfill: bool = Field(
        True,
        description="metadata indexes cover vectors written before them, too; as Cloudflare has it, they do not",
    )
    metadata_indexes_max: int = Field(10, ge=1, le=1_000, description="metadata indexes of one index")
    id_bytes_max: int = Field(64, ge=1, le=4_096, description="bytes of a vector's id")
    namespace_bytes_max: int = Field(64, ge=1, le=4_096, description="bytes of a namespace's name")
    metadata_bytes_max: int = Field(10_240, ge=2, description="bytes of a vector's metadata as compact JSON")
    filter_bytes_max: int = Field(2_048, ge=2, description="bytes of a filter as compact JSON")
    top_k_max: int = Field(100, ge=1, le=10_000, description="matches that a query may ask for")
    top_k_full_max: int = Field(50, ge=1, le=10_000, description="the same, with values or with all metadata")
    list_page_max: int = Field(1_000, ge=1, description="ids on one page of a listing")
    get_ids_max: int | None = Field(
        None, ge=1, description="ids in one `get_by_ids`; none: as many as a request holds (Cloudflare: 20)"
    )
    delete_ids_max: int | None = Field(
        None,
        ge=1,
        description="ids in one `delete_by_ids`; none: as many as a request holds (Cloudflare: 100)",
    )
    vectors_max: int | None = Field(
        None,
        ge=1,
        description="vectors of one index, beyond which uploads are refused (Cloudflare: 20,000,000)",
    )
    indexes_max: int | None = Field(None, ge=1, description="indexes of one account (Cloudflare: 50,000)")
    poll_delay_s: float = Field(0.01, gt=0, description="how often an idle worker asks Redis for jobs")
    worker_jobs: int = Field(4, ge=1, description="indexes that one worker process drains at once")
    parse_processes: int = Field(
        default_factory=lambda: max(1, min(4, (os.cpu_count() or 1) // 2)),
        ge=0,
        description="processes that one front end parses large uploads in, half the cores but at most 4; 0: threads of its own",
    )
    webhook_timeout_s: float = Field(
        10.0, gt=0, description="how long a webhook's receiver may take to answer"
    )
    webhook_tries_max: int = Field(
        36, ge=1, description="tries after which a webhook's message is given up; 36 of them take about a day"
    )
    webhook_private_addresses: bool = Field(
        False, description="whether webhooks may lead to private, loopback and other addresses not public"
    )
    filter_s_max: float = Field(
        60.0, gt=0, description="how long the filters of one query request may take; beyond, it is refused"
    )
    query_threads: int = Field(2, ge=1, description="threads that one front end searches with")
    embedding_models: DenseModels = Field(
        {}, description="models that turn text into dense vectors, by name, as JSON; `wordllama` is built in"
    )
    sparse_embedding_models: SparseModels = Field(
        {}, description="models that turn text into sparse vectors, by name, as JSON; `BM25` is built in"
    )
    embedding_patience_s: float = Field(
        300.0,
        gt=0,
        description="how long a mutation waits for a model that is away before it fails, and so holds up those behind it",
    )
    embedding_jobs: int = Field(
        1,
        ge=1,
        description="threads of one process that compute embeddings at once, with models that run in it",
    )

    upstash_read_your_writes: bool = Field(
        True,
        description="whether fetch, range and the like of the Upstash door see all writes acknowledged before they came",
    )
    upstash_read_wait_s: float = Field(
        10.0, gt=0, description="how long they wait for those writes at most; beyond, they get 503"
    )
    upstash_vectors_max: int = Field(
        1_000, ge=1, description="vectors in one upsert or upsert-data request of the Upstash door"
    )
    upstash_fetch_max: int = Field(
        1_000, ge=1, description="vectors that one fetch or one page of range may ask for there"
    )
    upstash_top_k_max: int = Field(
        1_000, ge=1, le=10_000, description="matches that a query may ask for there"
    )
    upstash_matches_max: int = Field(
        10_000, ge=1, description="matches that all queries of one request may ask for there, together"
    )
    upstash_id_bytes_max: int = Field(1_024, ge=1, le=4_096, description="bytes of a vector's id there")
    upstash_namespace_bytes_max: int = Field(
        256, ge=1, le=4_096, description="bytes of a namespace's name there"
    )
    upstash_metadata_bytes_max: int = Field(
        49_152, ge=2, description="bytes of a vector's metadata as compact JSON there"
    )
    upstash_data_bytes_max: int = Field(
        1 << 20, ge=1, description="bytes of a vector's data there, which is text in UTF-8"
    )
    upstash_sparse_max: int = Field(
        1_000, ge=1, description="dimensions that a sparse vector may have values in there"
    )
    upstash_filter_bytes_max: int = Field(16_384, ge=1, description="bytes of a filter's text there")
    upstash_resumable_max: int = Field(
        100, ge=1, description="resumable queries of one index that one front end keeps at once"
    )
    upstash_resumable_idle_s_max: float = Field(
        3_600.0, gt=0, description="longest `maxIdle` that a resumable query may ask for"
    )

    milvus_vectors_max: int = Field(
        5_000, ge=1, description="rows in one insert or upsert request of the Milvus door (Zilliz: 100)"
    )
    milvus_metadata_bytes_max: int = Field(
        131_072, ge=2, description="bytes of a row's fields there, but for its vectors, as compact JSON"
    )
    milvus_read_wait_s: float = Field(
        10.0,
        gt=0,
        description="how long Strong reads of the Milvus door wait for writes acknowledged before they came; beyond, they fail",
    )
    milvus_top_k_max: int = Field(
        16_384,
        ge=1,
        le=16_384,
        description="rows that a query or search may ask for there, those before them included",
    )
    milvus_nq_max: int = Field(16_384, ge=1, description="vectors or ids that one search may search by there")
    milvus_search_s_max: float = Field(
        60.0, gt=0, description="how long the searches of one request may take there; beyond, it is refused"
    )
    milvus_analysis_s_max: float = Field(
        300.0,
        gt=0,
        description="how long the texts of one insert or upsert request may take to be told apart into words there; beyond, it is refused",
    )
    milvus_filter_bytes_max: int = Field(65_536, ge=1, description="bytes of a filter's text there")
    milvus_json_as_text: bool = Field(
        False,
        description="whether JSON fields are read and shown there as strings that hold JSON, as Milvus did before 3.0.1",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level that is logged"
    )
    log_format: Literal["console", "json"] = Field("console", description="how log lines are written")
