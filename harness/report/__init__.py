"""What a run says to people and machines: Markdown, HTML, JUnit, the terminal, annotations, the dashboard."""
