"""Run the jobs of a plan: in which order, on what, and what need not run again."""
