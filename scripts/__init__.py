"""What the repository's own work needs: packing, pages, the audit of dependencies. `python -m scripts.NAME` starts one.

Lives here: the one sentence for a Python that is too old, in words that any Python can read.
"""

import sys

if sys.version_info < (3, 11):  # whoever starts it need not have made .venv
    sys.stderr.write("scripts need Python 3.11 or newer, and this is Python %d.%d; start them with: make\n"
                     % sys.version_info[:2])
    sys.exit(3)
