"""All settings: one frozen tree, from a file, the environment and the command line."""
