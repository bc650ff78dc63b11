"""Stands in for Colab's own package, which code looks for to find out where it runs. It can do nothing."""
