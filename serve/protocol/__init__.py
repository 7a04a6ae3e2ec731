"""The client protocol as data: commands and results, codecs, what a publication looks like."""
