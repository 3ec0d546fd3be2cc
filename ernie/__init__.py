"""What the six scripts share, a file a step, in the order in which data passes through them:

arguments  data  models  features  metrics  training  export  predictions

`utils.py` gathers the names that the scripts use.
"""

import workarounds  # noqa: F401  before Paddle, whichever of these modules is imported first
