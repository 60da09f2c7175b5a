"""The same training written without Evertrain: what the figures are compared with."""
