"""The few lines between a session and a real socket."""
