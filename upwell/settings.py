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

#: Where a front end or worker on its own looks for Redis when it is told nothing else.
DEFAULT_REDIS = "redis://127.0.0.1:6379/0"


class Settings(BaseSettings):
    """What an operator may choose. Sizes are in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix="UPWELL_", frozen=True, extra="ignore")

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

    batch_vectors_max: int = Field(200_000, ge=1, description="vectors that one commit applies at most")
    batch_mutations_max: int = Field(1_000, ge=1, description="mutations that one commit applies at most")
    batch_bytes_max: int = Field(
        256 << 20, ge=1, description="bytes of columns that one commit applies at most"
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
    poll_delay_s: float = Field(0.01, gt=0, description="how often an idle worker asks Redis for jobs")
    worker_jobs: int = Field(4, ge=1, description="indexes that one worker process drains at once")
    parse_processes: int = Field(
        default_factory=lambda: max(1, min(4, (os.cpu_count() or 1) // 2)),
        ge=0,
        description="processes that one front end parses large uploads in, half the cores but at most 4; 0: threads of its own",
    )
    query_threads: int = Field(2, ge=1, description="threads that one front end searches with")

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level that is logged"
    )
    log_format: Literal["console", "json"] = Field("console", description="how log lines are written")
