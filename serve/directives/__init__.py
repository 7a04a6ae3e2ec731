"""What edges tell one another: what is to be done to clients, and who has which channels."""
