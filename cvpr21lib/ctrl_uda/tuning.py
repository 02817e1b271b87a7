"""How the weight of the adversarial loss was chosen for the demo: one grid for all arms that have one.

cvpr21 records ctrl_uda --part tuning
"""

from __future__ import annotations

from dataclasses import replace

from cvpr21lib.ctrl_uda import demo

SEEDS = (100, 101, 102)
"""None of which is reported."""
WEIGHTS = (0.003, 0.01, 0.03, 0.1)
TUNED = ("advent", "mtl+advent", "ctrl-no-srh", "ctrl")
ARMS = {f"{arm}@{weight}": replace(demo.ARMS[arm], lambda_adv=weight) for arm in TUNED for weight in WEIGHTS}
"""E.g. "ctrl@0.01"."""
recipe = demo.recipe
