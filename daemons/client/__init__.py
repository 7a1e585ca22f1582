"""The client daemon: one a host, it stores, serves and fetches pieces and answers the CLI."""
