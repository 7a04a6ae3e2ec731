"""Who is subscribed to what, and how the feed gets to them."""
