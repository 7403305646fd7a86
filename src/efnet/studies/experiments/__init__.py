"""The paper's tables as experiments: a configuration per row, a runner that can be stopped, and a report."""
