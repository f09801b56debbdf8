"""How experience is made: environments of any origin, as RLlib's runners take them."""
