"""One replica: its parts joined, its listener, its health, its metrics."""
