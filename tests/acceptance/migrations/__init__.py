"""A schema's history as applications make it, run against an endpoint."""
