"""The search for a mixture: which short runs to make, what their losses say, and whether they say enough."""
