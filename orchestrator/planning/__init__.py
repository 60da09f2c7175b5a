"""The preflight: batch arithmetic, divisibility, DeepSpeed's incompatibilities, memory, layouts, time and cost. Pure."""
