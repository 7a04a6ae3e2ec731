"""What users write between queue and subscribers: found, loaded, called, and judged."""
