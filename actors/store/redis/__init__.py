"""The store on Valkey or Redis."""
