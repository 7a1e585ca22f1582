"""The one seam that bytes cross: a byte stream between two hosts, and what rides on it."""
