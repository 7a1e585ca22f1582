"""Measurements: each a program of its own, none of them a test."""
