"""Eight CVPR 2021 papers to read, run, check and extend.

One room (subpackage) a paper; the shared rooms are `papers`, `runs`, `record`, `checkpoints`, `metrics`,
`images`, `figures` and `scenes`. Importing this package is light: torch comes with the first paper.
"""

__version__ = "0.1.0"
