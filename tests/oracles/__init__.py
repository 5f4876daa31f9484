"""Independent references: closed forms and brute force, none of it built on the library."""
