"""The journal of a facility: what happened in every session, append-only, hash-chained, in SQLite or PostgreSQL."""
