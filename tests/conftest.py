"""What every test relies on."""

import os

# two workers on two cores: threads that wait for one another by spinning would only fight
os.environ.setdefault("OMP_NUM_THREADS", "1")
