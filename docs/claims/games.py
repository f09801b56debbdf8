"""Games: self-play, PSRO, leagues, and how exploitable what they find is."""

from __future__ import annotations

from collections.abc import Callable

from claims import figures as f
from claims.claim import Claim, Section

CYCLE, PSRO, EXPLOIT = (f"small_games_{part}.csv" for part in ("cycle", "psro", "exploit"))
SMALL = "python benchmarks/small_games.py "
_THROWS = ("rock", "paper", "scissors")
_AIMS = {"rock_paper_scissors": 0.05, "kuhn": 0.1}


def _favourites() -> str:
    """Return what self-play against the newest snapshot throws most, one letter a change."""
    rows = f.rows_of(CYCLE, seed="0")
    thrown = [max(_THROWS, key=lambda name: float(row[name]))[0] for row in rows]
    return "".join(now for before, now in zip(["", *thrown], thrown, strict=False) if now != before)


def _mean(column: str, *, start: int) -> float:
    rows = [row for row in f.rows_of(CYCLE, seed="0") if int(row["iteration"]) > start]
    return sum(float(row[column]) for row in rows) / len(rows)


def _final(game: str, column: str = "nash_conv_of_mixture") -> list[float]:
    """Return the value of each seed's last round."""
    last: dict[str, float] = {}
    for row in f.rows_of(PSRO, game=game):
        last[row["seed"]] = float(row[column])
    return list(last.values())


def _rounds(game: str) -> int:
    return max(int(row["round"]) for row in f.rows_of(PSRO, game=game))


def _steps(game: str) -> str:
    return f"{max(int(row['env_steps']) for row in f.rows_of(PSRO, game=game)):,}"


def _in_words(game: str, column: str = "nash_conv_of_mixture") -> Callable[[], str]:
    return lambda: f.describe(_final(game, column), 3)


def _verdict(game: str) -> str:
    values = _final(game)
    reached = sum(value < _AIMS[game] for value in values)
    return f"below {_AIMS[game]}, the aim, on {reached} of {len(values)} seeds"


def _bounds(game: str) -> str:
    rows = f.rows_of(EXPLOIT, game=game)
    return "; ".join(
        f"{float(row['bound']):.3f} ± {float(row['half_width']):.3f} (exact {float(row['exact']):.3f})"
        for row in rows
    )


def _bounds_hold() -> bool:
    """Whether no bound is above the exact value by more than its interval."""
    return all(
        float(row["bound"]) - float(row["half_width"]) <= float(row["exact"]) for row in f.rows_of(EXPLOIT)
    )


def _psro(game: str, what: str) -> Claim:
    return Claim(
        f"PSRO (mixture by the Nash equilibrium of the game between all policies) in {what}, {{rounds}} responses, "
        "{steps} environment steps in all: exact NashConv of the mixture {conv}; {verdict}. The newest policy alone "
        "has {newest}",
        {
            "rounds": lambda: str(_rounds(game)),
            "steps": lambda: _steps(game),
            "conv": _in_words(game),
            "newest": _in_words(game, "nash_conv_of_newest"),
            "verdict": lambda: _verdict(game),
        },
        SMALL + f"psro --games {game}",
        (PSRO,),
    )


LEAGUES, EXPLOITED = "league_study_games.csv", "league_study_exploit.csv"
STUDY = "python benchmarks/league_study.py "
_TEAMS = {"duel": {"0": ""}, "tag": {"0": " of the chasers", "1": " of the prey"}}


def _returns(game: str, kind: str, other: str, team: str) -> list[float]:
    """Return one agent's mean return of each seed of a kind, against all seeds of the other kind."""
    by_seed: dict[str, list[float]] = {}
    for row in f.rows_of(LEAGUES, game=game, kind=kind, opponent_kind=other):
        if game == "duel" or row["team"] == team:  # the two teams of a duel are alike
            by_seed.setdefault(row["seed"], []).append(float(row["return"]))
    return [sum(values) / len(values) for values in by_seed.values()]


def _against_each_other(game: str) -> str:
    return "; ".join(
        f"return{side} {f.describe(_returns(game, 'league', 'latest', team), 1)} for the league's policy against the "
        f"other, {f.describe(_returns(game, 'latest', 'league', team), 1)} the other way round"
        for team, side in _TEAMS[game].items()
    )


def _bound_of(game: str, kind: str) -> Callable[[], str]:
    return lambda: f.grouped(EXPLOITED, "nash_conv", 1, game=game, kind=kind)


def _league(game: str, what: str) -> Claim:
    return Claim(
        f"{what}: the main policy of a league (3 rounds, 7 trainings) and self-play against the newest snapshot (a "
        "fifth of the episodes against itself), PPO with the same settings, {steps} environment steps each, {seeds} "
        "seeds, every seed against every other. {between}. NashConv of the league's at least {league}, of the other "
        "{latest} (two responses of {response} steps each, which begin with the policy's weights). Then `play`, and "
        "`exploit --response-steps 25600`",
        {
            "steps": lambda: f"{int(f.rows_of('league_study_runs.csv', game=game)[0]['env_steps']):,}",
            "seeds": lambda: str(len({row["seed"] for row in f.rows_of(LEAGUES, game=game)})),
            "between": lambda: _against_each_other(game).capitalize(),
            "league": _bound_of(game, "league"),
            "latest": _bound_of(game, "latest"),
            "response": lambda: f"{int(f.rows_of(EXPLOITED, game=game)[0]['response_steps']):,}",
        },
        STUDY + "train --seeds 5",
        (LEAGUES, EXPLOITED),
    )


BATTLES = "skirmish_self_play/against_the_script.csv"


def _won(mode: str) -> str:
    """Return the share of battles against the script that each seed's policy has won."""
    shares: dict[str, list[float]] = {}
    for row in f.rows_of(BATTLES, mode=mode):
        shares.setdefault(row["run"], []).append(float(row["won"]))
    return f.describe([sum(won) / len(won) for won in shares.values()], 2)


def _won_by_script(policy: str) -> str:
    won = [float(row["won"]) for row in f.rows_of(f"skirmish_self_play/scripted_{policy}.csv")]
    return f"{sum(won) / len(won):.2f}"


MODELLED = "opponent_model.csv"


def _payoff(variant: str) -> Callable[[], str]:
    def text() -> str:
        last: dict[str, float] = {}
        for row in f.rows_of(MODELLED, variant=variant):
            last[row["seed"]] = float(row["payoff"])
        return f.describe(list(last.values()), 2)

    return text


def _parameters(variant: str) -> Callable[[], str]:
    return lambda: f"{int(f.rows_of(MODELLED, variant=variant)[0]['parameters']):,}"


def _accuracy() -> str:
    last = {row["seed"]: float(row["opponent_accuracy"]) for row in f.rows_of(MODELLED, variant="feed")}
    return f.describe(list(last.values()), 2)


GAMES = Section(
    "Games",
    "A NashConv is what all teams together gain by best responses; in rock, paper, scissors it is 2 where both always "
    "throw the same; uniformly random play of Kuhn poker has 11/12.",
    (
        Claim(
            "PPO against its newest snapshot alone (`matchmaking: latest`) goes round in rock, paper, scissors: seed 0 "
            "throws {favourites} most in turn in 150 iterations, with a NashConv of {conv} on average over the last "
            "100; the average of all its policies has {average} at the end",
            {
                "favourites": _favourites,
                "conv": lambda: f"{_mean('nash_conv', start=50):.2f}",
                "average": lambda: f.last(CYCLE, "nash_conv_of_average", 2, seed="0"),
            },
            SMALL + "cycle --seeds 1",
            (CYCLE,),
            holds=lambda: len(_favourites()) >= 5 and _mean("nash_conv", start=50) > 1,
        ),
        _psro("rock_paper_scissors", "rock, paper, scissors"),
        _psro("kuhn", "Kuhn poker"),
        Claim(
            "`rllib exploit` on these mixtures, three responses each, beside the exact NashConv, a pair a seed: rock, "
            "paper, scissors {throws}; Kuhn poker {kuhn}. No bound lies above the exact value by more than its 95% "
            "interval",
            {"throws": lambda: _bounds("rock_paper_scissors"), "kuhn": lambda: _bounds("kuhn")},
            SMALL + "exploit",
            (EXPLOIT,),
            holds=_bounds_hold,
        ),
        _league("duel", "`duel` of `swarm_competitive_v0`"),
        _league("tag", "`mpe_tag_v0`, three chasers and a faster prey"),
        Claim(
            "Three marines against three, PPO in self-play for {steps} environment steps, then against SMAX's script, "
            "which it has never met, {episodes} battles a seed: won {greedy} without exploration, {sampled} with "
            "sampled actions; random play {random}, the scripted policies `nearest` {nearest} and `focus` {focus}. "
            "{seconds} s of training a seed. Then `rllib evaluate RUNS --episodes 400 --env-config "
            '\'{{"enemy": "heuristic"}}\'`',
            {
                "steps": lambda: f.steps("skirmish_self_play"),
                "episodes": lambda: str(len({row["seed"] for row in f.rows_of(BATTLES)})),
                "greedy": lambda: _won("greedy"),
                "sampled": lambda: _won("sampled"),
                "seconds": lambda: f.training_seconds("skirmish_self_play"),
                **{
                    policy: lambda policy=policy: _won_by_script(policy)
                    for policy in ("random", "nearest", "focus")
                },
            },
            "rllib train skirmish_self_play --seeds 0-4",
            ("skirmish_self_play",),
        ),
        Claim(
            "PPO in repeated rock, paper, scissors against 16 opponents with habits, mean payoff of a round after "
            "192,000 steps: with an opponent model whose predictions feed the policy {feed} ({feed_size} parameters, "
            "accuracy {accuracy}), with its loss alone {loss}, without it {none} ({none_size}), without it and wider "
            "{wide} ({wide_size})",
            {
                **{variant: _payoff(variant) for variant in ("feed", "loss", "none", "wide")},
                **{f"{variant}_size": _parameters(variant) for variant in ("feed", "none", "wide")},
                "accuracy": _accuracy,
            },
            "python benchmarks/opponent_model.py --seeds 5",
            (MODELLED,),
        ),
    ),
)
