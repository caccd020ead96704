"""Train, distil and evaluate the checkpoints that the app shows."""
