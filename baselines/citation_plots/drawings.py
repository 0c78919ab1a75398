"""Drawings of what `measures` counts. The colours of Okabe and Ito, told apart by everybody."""

from __future__ import annotations

from typing import Literal

import networkx
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # a Figure of its own needs no pyplot and no display
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, PercentFormatter

from baselines.citation_plots.measures import ClassMeasures, WordMeasures, ball
from gnn_core.data.graph import Graph

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_OTHER = "#BBBBBB"
_SPLITS = {1: ("train", "#D55E00"), 2: ("valid", "#E69F00"), 3: ("test", "#0072B2")}


def colour_of(label: int) -> str:
    """The colour of a class; grey where there are more classes than colours, or none."""
    return _COLOURS[label] if 0 <= label < len(_COLOURS) else _OTHER


def draw_classes(graph: Graph, classes: ClassMeasures) -> Figure:
    """How many papers each class has, and in which split they are."""
    order = np.argsort(-classes.sizes, kind="stable")
    figure, axes = _figure(f"{graph.name}: papers by class and split", 1, (8, 4.2))
    left = np.zeros(len(order))
    for split, (name, colour) in (*_SPLITS.items(), (0, ("in no split", "#DDDDDD"))):
        counts = classes.in_split[order, split]
        axes[0].barh(_names(classes, order), counts, left=left, color=colour, label=name)
        left += counts
    for place, total in enumerate(left):
        axes[0].annotate(
            f"{total:.0f}  ({100 * total / left.sum():.0f} %)",
            (total, place),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    axes[0].invert_yaxis()
    axes[0].margins(x=0.14)
    axes[0].set_xlabel("papers")
    axes[0].legend(frameon=False, loc="lower right")
    return figure


def draw_degrees(graph: Graph) -> Figure:
    """How many papers have how many neighbours; and the share with at least so many."""
    degrees = np.diff(graph.indptr)
    figure, axes = _figure(f"{graph.name}: neighbours of a paper", 2, (10, 4.2))
    values, counts = np.unique(degrees[degrees > 0], return_counts=True)
    axes[0].loglog(values, counts, "o", color=_COLOURS[0], markersize=4)
    axes[0].set_ylabel("papers with exactly so many")
    axes[1].loglog(values, 1 - np.cumsum([0, *counts[:-1]]) / counts.sum(), color=_COLOURS[0])
    axes[1].set_ylabel("share of papers with at least so many")
    axes[1].yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    median, mean, most = np.median(degrees), degrees.mean(), degrees.max()
    for axis in axes:
        axis.set_xlabel("neighbours (citing or cited)")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:g}"))
        axis.grid(alpha=0.3)
        axis.axvline(mean, color=_COLOURS[5], linestyle="--", linewidth=1)
    axes[0].annotate(
        f"mean {mean:.1f}",
        (mean, counts.max()),
        (5, 2),
        textcoords="offset points",
        color=_COLOURS[5],
        fontsize="small",
    )
    axes[1].text(
        0.97,
        0.95,
        f"median {median:.0f}, mean {mean:.1f}, most {most}",
        transform=axes[1].transAxes,
        ha="right",
        va="top",
    )
    return figure


def draw_homophily(graph: Graph, classes: ClassMeasures) -> Figure:
    """The share of citations that stay in a class, against chance; and where the others lead."""
    order = np.argsort(-classes.homophily, kind="stable")
    figure, axes = _figure(f"{graph.name}: citations within and between classes", 2, (12, 4.8))
    names = _names(classes, order)
    axes[0].barh(names, classes.homophily[order], color=_COLOURS[0], label="within the class")
    axes[0].plot(
        classes.by_chance[order],
        range(len(order)),
        "|",
        color=_COLOURS[5],
        markersize=16,
        markeredgewidth=2.5,
        label="if citations did not look at classes",
    )
    for place, share in enumerate(classes.homophily[order]):
        axes[0].annotate(
            f"{100 * share:.0f} %",
            (share, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    axes[0].invert_yaxis()
    axes[0].set_xlim(0, 1.08)
    axes[0].xaxis.set_major_formatter(PercentFormatter(1))
    axes[0].set_xlabel("share of a class's citations")
    axes[0].legend(frameon=False, loc="upper center", bbox_to_anchor=(0.45, -0.16), ncols=2)
    shares = classes.mixing[np.ix_(order, order)]
    # The square root tells small shares apart without hiding that the diagonal is large.
    axes[1].imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        axes[1].text(
            column,
            row,
            f"{100 * share:.0f}" if share >= 0.005 else "·",
            ha="center",
            va="center",
            color="white" if share > 0.35 else "black",
            fontsize="small",
        )
    axes[1].set_yticks(range(len(order)), names)
    axes[1].set_xticks(range(len(order)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes[1].spines[:].set_visible(False)
    axes[1].tick_params(length=0)
    axes[1].set_title("of 100 citations of a row's papers, in each column's", fontsize="medium")
    return figure


def draw_words(graph: Graph, classes: ClassMeasures, words: WordMeasures, top: int = 25) -> Figure:
    """Words per paper, papers per word, and the most frequent words."""
    figure, axes = _figure(f"{graph.name}: words", 3, (13, 5.6))
    bins = np.arange(words.per_paper.min(), words.per_paper.max() + 2) - 0.5
    axes[0].hist(words.per_paper, bins=bins.tolist(), color=_COLOURS[0])
    axes[0].axvline(words.per_paper.mean(), color=_COLOURS[5], linestyle="--", linewidth=1)
    axes[0].set_title(f"mean {words.per_paper.mean():.1f} of {len(words.papers_with)} words")
    axes[0].set_xlabel("different words of a paper")
    axes[0].set_ylabel("papers")
    ranked = np.argsort(-words.papers_with, kind="stable")
    present = words.papers_with[ranked][words.papers_with[ranked] > 0]
    axes[1].loglog(np.arange(1, len(present) + 1), present, color=_COLOURS[0])
    axes[1].set_title(f"half of the words are in at most {np.median(present):.0f} papers")
    axes[1].set_xlabel("rank of the word")
    axes[1].set_ylabel("papers that have the word")
    axes[1].grid(alpha=0.3)
    first = ranked[:top]
    likeliest = words.likeliest_class[first]
    colours = [colour_of(int(label)) for label in likeliest]
    labels = [f"word {number}" for number in first]
    axes[2].barh(labels, words.papers_with[first], color=colours)
    for place, word in enumerate(first):
        axes[2].annotate(
            f"{words.lift[word]:.1f} x",
            (words.papers_with[word], place),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize="x-small",
        )
    axes[2].invert_yaxis()
    axes[2].margins(x=0.12, y=0.01)
    axes[2].tick_params(axis="y", labelsize="x-small")
    axes[2].set_xlabel("papers that have the word")
    axes[2].set_title("most frequent, by the class that favours it")
    _class_legend(axes[2], classes, np.unique(likeliest), loc="lower right")
    return figure


def draw_neighbourhood(graph: Graph, classes: ClassMeasures, centre: int, hops: int) -> Figure:
    """All papers around one paper and the citations among them, coloured by class."""
    distance = ball(graph, centre, hops)
    drawn = networkx.Graph()
    drawn.add_nodes_from(distance)
    drawn.add_edges_from(
        (node, int(other))
        for node in distance
        for other in graph.indices[graph.indptr[node] : graph.indptr[node + 1]]
        if int(other) in distance and int(other) != node
    )
    labels = np.asarray(graph.labels)
    title = f"{graph.name}: the {len(distance)} papers at most {hops} citations from paper {centre}"
    figure, axes = _figure(title, 1, (10, 8))
    # By path lengths first, so that branches unfold; springs then part what lies together.
    start = networkx.kamada_kawai_layout(drawn)
    places = networkx.spring_layout(
        drawn, pos=start, k=1.1 / np.sqrt(len(distance)), iterations=40, seed=0
    )
    for alike, colour, style in ((True, "#999999", "solid"), (False, "black", "dashed")):
        edges = [(a, b) for a, b in drawn.edges if (labels[a] == labels[b]) == alike]
        networkx.draw_networkx_edges(
            drawn, places, edges, ax=axes[0], edge_color=colour, style=style, width=0.8, alpha=0.6
        )
    sizes = [260 if node == centre else (90 if hop == 1 else 45) for node, hop in distance.items()]
    networkx.draw_networkx_nodes(
        drawn,
        places,
        list(distance),
        ax=axes[0],
        node_size=sizes,
        node_color=[colour_of(int(labels[node])) for node in distance],
        edgecolors=["black" if node == centre else "white" for node in distance],
        linewidths=[2.0 if node == centre else 0.6 for node in distance],
    )
    axes[0].set_axis_off()
    same = np.mean([labels[a] == labels[b] for a, b in drawn.edges])
    axes[0].text(
        0,
        0,
        f"{drawn.number_of_edges()} citations, {100 * same:.0f} % within a class (grey; "
        "black, dashed: between classes)\nlarge: the paper itself; medium: its neighbours",
        transform=axes[0].transAxes,
        fontsize="small",
        va="bottom",
    )
    present = np.unique(labels[list(distance)])
    _class_legend(axes[0], classes, present, loc="upper right", as_dots=True)
    return figure


def _figure(title: str, panels: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False).flat)
    figure.suptitle(_plain(title), x=0.01, ha="left")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _plain(text: str) -> str:
    """The text as it is: between two dollar signs matplotlib would read a formula."""
    return text.replace("$", r"\$")


def _names(classes: ClassMeasures, order: npt.NDArray[np.integer]) -> list[str]:
    return [_plain(classes.names[label]) for label in order]


def _class_legend(
    axes: Axes,
    classes: ClassMeasures,
    labels: npt.NDArray[np.integer],
    loc: Literal["lower right", "upper right"],
    as_dots: bool = False,
) -> None:
    marker = "o" if as_dots else "s"
    handles = [
        Line2D([], [], linestyle="", marker=marker, color=colour_of(label), label=_plain(name))
        for label, name in ((int(label), classes.names[int(label)]) for label in labels)
    ]
    axes.legend(handles=handles, frameon=False, loc=loc, fontsize="small")
