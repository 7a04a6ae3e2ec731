"""The server API over HTTP, and the way from it into the queue."""
