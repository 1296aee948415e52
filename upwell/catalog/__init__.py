"""Who owns what: accounts' indexes by name (names.py, record.py), and the tokens that may touch them (tokens.py)."""
