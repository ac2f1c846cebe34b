"""Training as a service: the server's run and record, and a site that joins."""
