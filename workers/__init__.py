"""The arq side: what turns the log into shards and commits them."""
