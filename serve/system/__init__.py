"""A whole system on this machine, or launched from it: started, watched, reloaded, stopped."""
