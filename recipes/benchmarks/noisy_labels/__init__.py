"""The benchmark of fine-tuning on noisy labels: data, models, methods, and one cell of the grid."""
