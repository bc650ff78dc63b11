"""Whether the numbers hold: rules, claims against values, blessing, the comparison of two runs."""
