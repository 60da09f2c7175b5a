"""What runs say while they live: log lines and metrics."""
