"""What is asked: the book's configuration, its notebooks, claims and parameters, and the plan of a run."""
