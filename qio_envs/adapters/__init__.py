"""The interfaces of an environment: PettingZoo, Gymnasium, vector and team."""
