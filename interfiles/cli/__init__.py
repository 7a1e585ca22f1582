"""The commands: they ask the daemons on this host by `interfiles.control`, and show what they answer."""
