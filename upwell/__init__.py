"""Upwell's engine: a durable log of mutations, and the FAISS shards built from it. No HTTP here."""
