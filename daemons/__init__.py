"""The two daemons, master and client, and what they share: supervision, readiness, the state lock and logs.

Nothing in `interfiles` imports this package.
"""
