"""The published book: its pages staged and rendered, and the copies to take away."""
