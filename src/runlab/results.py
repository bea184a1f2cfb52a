"""`python -m runlab.results <folder of runs>` prints their results as a table."""

import sys

from runlab.config.messages import report_errors
from runlab.sweeps import compare

if __name__ == "__main__":
    with report_errors():
        compare.main(sys.argv[1:])
