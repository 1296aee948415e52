"""Doors: one package a vendor's protocol. A door turns requests into the operations of ``ingest.operations`` and their
results into that vendor's shapes. No door knows about storage, and none imports another.
"""
