"""Dead letters, as people see and handle them."""
