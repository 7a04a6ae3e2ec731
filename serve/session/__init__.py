"""One client without its socket, and the shell that joins it to the edge."""
