"""What training made a model forget: slices, tasks, probes, their statistics, and the guard in the loop."""
