"""Sinks of a run's metrics beside its own files: TensorBoard, Weights & Biases, a user's own. See docs/doors.md."""
