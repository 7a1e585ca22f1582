"""Who may join and who is who: join tokens, and later the fleet's certificates."""
