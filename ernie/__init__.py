"""What the six scripts share, one file per step, in the order in which data passes through them:

tasks  arguments  data  models  features  training  results  export                     run_*.py
compression  pruning  quantization  report  report_picture                              compress_*.py
argument_table  argument_parser  argument_checks                                        what arguments are read with
identity  checkpoints                      what was made from what: resumed, made again, written down
errors  console  files  processes                                                       everywhere
static_model  onnx_graph  paddle_int8      what depends on Paddle's version: static models, their ONNX form, INT8

`utils.py` gathers the names that the scripts use.
"""

import workarounds  # noqa: F401  before Paddle, whichever of these modules is imported first
