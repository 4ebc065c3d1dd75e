"""What the bench-* scripts share: clusters on this host, tables, and pictures."""
