"""Matrix games: repeated games in normal form, named ones and any given by its payoffs."""

from qio_envs.api.policies import RandomPolicy
from qio_envs.matrix_game.config import CUSTOM, MatrixGameConfig
from qio_envs.matrix_game.env import MatrixGame
from qio_envs.matrix_game.named_games import END, NAMED_GAMES, NamedGame
from qio_envs.matrix_game.policies import NashPolicy, OraclePolicy, TitForTatPolicy

__all__ = [
    "CUSTOM",
    "END",
    "NAMED_GAMES",
    "MatrixGame",
    "MatrixGameConfig",
    "NamedGame",
    "NashPolicy",
    "OraclePolicy",
    "RandomPolicy",
    "TitForTatPolicy",
]
