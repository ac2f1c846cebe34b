"""Examples that are read, and run by the tests beside them."""
