"""Logs and readiness. Metrics come here when there is something to scrape."""
