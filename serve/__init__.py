"""The edge: the publishing API and the sockets. Knows nothing of how messages are made."""
