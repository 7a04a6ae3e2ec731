"""The discussion that `raywire up` shows when it is given no settings."""
