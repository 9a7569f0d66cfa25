"""Durable orchestration: what is done in which order, and undone when it fails. Knows only the domain."""
