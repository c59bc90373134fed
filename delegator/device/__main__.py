"""`python -m delegator.device activate ...`: the way in, and nothing else."""

import sys

from delegator.device.command import main

if __name__ == "__main__":
    sys.exit(main())
