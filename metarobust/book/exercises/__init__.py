"""Self-checks of the exercises."""
