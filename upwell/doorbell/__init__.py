"""The doorbell: everything that front ends and workers both know of Redis. The only part of the engine that does.

Redis carries wake-ups, leases, hints and notices, and never anything that could not be lost: keys.py lists every key. bell.py
rings for a drain, lease.py says who drains and proves that no wake-up is lost, notices.py tells of commits, embedded.py
starts a server of our own, connection.py reaches whichever there is.
"""
