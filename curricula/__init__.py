"""When, and what it did: order, training, retention. May import `mixer`, never `synth`."""
