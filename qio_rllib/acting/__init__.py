"""How agents act: the Actor and its implementations."""
