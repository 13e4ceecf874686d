"""The book: its figures, its exercises, and the claims of its pages."""
