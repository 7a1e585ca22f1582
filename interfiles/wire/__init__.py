"""Frames, typed messages and session negotiation: bytes in, messages out, and no IO (see docs/protocol.md)."""
