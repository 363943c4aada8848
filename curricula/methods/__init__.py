"""How continual pre-training protects what a model knew: a file a method, all with the hooks of `base.Method`."""
