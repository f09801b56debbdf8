"""World models: learned dynamics, planning and imagination, in plain torch."""
