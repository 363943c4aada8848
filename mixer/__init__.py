"""Plan, clean, pack and mix corpora for continual pre-training. Loads no torch and no vllm."""

__version__ = "0.1.0"
