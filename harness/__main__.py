"""``python -m harness``."""

import sys

try:
    from harness.cli import main

    code = main()
except KeyboardInterrupt:  # during the imports, or at the very end
    print("error: interrupted", file=sys.stderr)
    code = 4
sys.exit(code)
