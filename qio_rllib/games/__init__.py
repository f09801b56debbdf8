"""Games: equilibria, dynamics, regrets and rankings in normal form, and pools of opponents; neither ray nor torch.

Sources: Shoham and Leyton-Brown, "Multiagent Systems", 2009; Fudenberg and Levine, "The Theory of Learning in Games",
1998. Each function names its own.
"""
