"""Pictures of causal graphs: layers, text, and what is on the canvas."""

import numpy as np
from PIL import Image

from qio_rllib.artifacts.causal_plots import draw_graph
from qio_rllib.causal.drawing import draw_text, layout
from qio_rllib.causal.graph import CausalGraph
from qio_rllib.causal.partial_graph import PartialGraph

FRONT_DOOR = CausalGraph([("u", "a"), ("u", "y"), ("a", "m"), ("m", "y")], hidden=["u"])


def test_causes_stand_to_the_left_of_their_effects():
    places = layout(FRONT_DOOR)
    assert [places[name][0] for name in ("u", "a", "m", "y")] == [0, 1, 2, 3]
    assert len(set(places.values())) == len(places)
    wide = CausalGraph([("a", "p"), ("b", "q"), ("c", "r")], ["c", "b", "a", "p", "q", "r"])
    rows = {name: y for name, (_, y) in layout(wide).items()}
    assert all(rows[cause] == rows[effect] for cause, effect in wide.edges)  # no crossings


def test_a_cycle_stands_on_a_circle():
    marks = np.zeros((3, 3), bool)
    marks[[0, 1, 2], [1, 2, 0]] = True
    places = layout(PartialGraph(marks, "abc"))
    centre = np.mean(list(places.values()), axis=0)
    distances = [np.hypot(*(np.array(place) - centre)) for place in places.values()]
    np.testing.assert_allclose(distances, distances[0])


def test_text_has_a_line_for_each_effect():
    assert draw_text(FRONT_DOOR) == "a <- u\ny <- u, m\nm <- a"
    partial = PartialGraph.of(CausalGraph([("a", "c"), ("b", "c"), ("d", "e")], "abcdef"))
    assert draw_text(partial) == "c <- a, b\nd - e\nalone: f"


def dark(path):
    picture = np.asarray(Image.open(path).convert("L"))
    return int((picture < 120).sum()), picture.shape


def test_figures_show_more_ink_for_more_edges(tmp_path):
    names = ["a", "b", "c", "d"]
    few = CausalGraph([("a", "b"), ("b", "c"), ("c", "d")], names)
    more = CausalGraph([*few.edges, ("a", "c"), ("a", "d"), ("b", "d")], names)
    for name, graph in (("few", few), ("more", more)):
        draw_graph(graph, tmp_path / f"{name}.png")
    (ink, shape), (more_ink, more_shape) = (dark(tmp_path / f"{name}.png") for name in ("few", "more"))
    assert shape == more_shape
    assert ink < more_ink
    draw_graph(PartialGraph.of(few), tmp_path / "partial.png", "without directions", marked=["a"])
    assert dark(tmp_path / "partial.png")[0] > 0
    draw_graph(CausalGraph((), "ab"), tmp_path / "alone.png")
    assert dark(tmp_path / "alone.png")[0] > 0
