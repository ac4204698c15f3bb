"""The statistical model of central differences: pure functions over arrays."""
