"""What Raywire asks of Valkey or Redis, and who answers: a server, or memory in unit tests."""
