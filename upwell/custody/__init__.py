"""An operator's care for a store: checking it, and carrying an index out of one store and into another.

findings.py is what a check has to say, objects.py verifies one object, rows.py what the segments of a shard hold, index.py one index, and
check.py a whole store. archive.py is a backup as a file, backup.py makes one, and restore.py makes an index of one. All of it reads
beside running processes; only restore.py writes.
"""
