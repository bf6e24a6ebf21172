"""How a target computes each operation of the middle form: encodings of r, and a short table."""
