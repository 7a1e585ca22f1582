"""Who asks whom for which piece, as pure code: time and chance are arguments, IO is the callers'."""
