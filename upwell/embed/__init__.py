"""Text to vectors: models built in, models behind an HTTP server, and which name means which.

All of it blocks and may be called from any number of threads at once; never call it from an event loop. Workers call it after a mutation
was acknowledged, front ends only for a query's text. A model that is away, or answers nonsense, is ``ModelAway`` and worth trying
again; a text that a model will never take is ``TextRefused``.
"""
