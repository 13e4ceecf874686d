"""The readers' exercises, a module a chapter: each checks an answer by properties, and says which one fails and why."""
