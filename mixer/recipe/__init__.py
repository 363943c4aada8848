"""The recipe: its sections as typed models, and how a file becomes one."""
