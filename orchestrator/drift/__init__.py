"""Whether the world that a model sees is still the one that it was trained in.

Summaries of constant size (`sketches`) of a reference and of a window of live data (`windows`) are compared feature by
feature (`tests`) and all at once (`multivariate`); streams of errors are watched item by item (`detectors`), and
performance is estimated while labels are still missing (`estimation`). `verdicts` makes one judgement of all that, with its
error under control, in words; `watch` puts them together for one monitor. No monitor uses `multivariate` yet, which needs
rows of the reference, nor `seasons`, which needs one reference for each. Pure: no clock, no I/O; seeds are arguments.
"""
