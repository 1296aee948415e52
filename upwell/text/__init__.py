"""What texts are made of, for full-text search: terms, by an analyzer. Deterministic: what was once analyzed is so for ever."""
