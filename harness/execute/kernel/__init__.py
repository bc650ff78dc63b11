"""One job: its worker, its kernel, what that printed and opened, and how it ended."""
