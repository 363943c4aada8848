"""What is missing: synthetic text, generated with evidence and verified. May import `mixer`, never `curricula`."""
