"""python -m reverse_perturbation: the command ``reverse-perturbation``."""

import sys

from reverse_perturbation.cli import main

sys.exit(main())
