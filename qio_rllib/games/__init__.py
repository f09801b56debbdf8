"""Games: self-play against pools of opponents."""
