"""Whether the world that a model sees is still the one that it was trained in.

Summaries of constant size (`sketches`) of a reference and of a window of live data (`windows`) are compared feature by
feature (`tests`) and all at once (`multivariate`); streams of errors are watched item by item (`detectors`), and
performance is estimated while labels are still missing (`estimation`). `verdicts` makes one judgement of all that, with its
error under control, in words; `watch` puts them together for one monitor. What goes together shows in rows alone: a few are
kept (`rows`), of the reference and of each window (`together`). `seasons` has one reference for each hour or day. Pure: no
clock, no I/O; seeds are arguments.
"""
