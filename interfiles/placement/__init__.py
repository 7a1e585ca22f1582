"""Who has what, and who should talk to whom: decisions of the master, without IO; time and chance are arguments."""
