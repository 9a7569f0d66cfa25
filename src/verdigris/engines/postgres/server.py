"""One PostgreSQL server on disk and as a process."""
