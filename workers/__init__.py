"""The workers: arq over Redis, draining each index's log into its shards. worker.py is the process, drain.py the job,
sweep.py what makes kills and wipes cost seconds. They stand on ``upwell`` and never import ``ingest``.
"""
