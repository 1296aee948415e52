"""Upstash Vector's REST API, for its own clients: ``/upstash/{account}/{index}`` is the base URL that they are given."""
