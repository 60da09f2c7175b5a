"""A package of its own: a data set that the tests use installs another one of this name."""
