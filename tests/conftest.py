"""What every test relies on."""

import os
import signal

# two workers on two cores: threads that wait for one another by spinning would only fight
os.environ.setdefault("OMP_NUM_THREADS", "1")

# what is started in the background of a shell ignores Ctrl-C and passes that on; the tests send it and mean it
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

# under GitHub Actions the runs of the tests would annotate the repository and fill the step's summary
for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
    os.environ.pop(name, None)
