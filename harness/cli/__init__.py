"""The command line: words in, calls, exit codes; the doctor; the plugin for pytest."""
