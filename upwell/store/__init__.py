"""Durable objects: named, immutable, written once. Everything Upwell promises stands on ``Store.create``."""

from upwell.store.base import Store as Store
from upwell.store.base import create_own as create_own
from upwell.store.directory import DirectoryStore as DirectoryStore
from upwell.store.open import open_store as open_store
from upwell.store.reading import read_object as read_object
