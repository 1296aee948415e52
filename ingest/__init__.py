"""The front end: HTTP in, acknowledgements and answers out."""
