"""A convolution of PyTorch Geometric as the layers of a model.

python baselines/single.py --model examples/pyg_sage.py:PygSage
"""

from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from horovod_gnn.edges import Edges
from horovod_gnn.layered import LayeredModel


class PygSage(LayeredModel):
    """GraphSAGE with the mean of the neighbours."""

    def make_layer(self, depth: int, in_features: int, out_features: int) -> nn.Module:
        """The layer at this depth."""
        return SAGEConv(in_features, out_features)

    def run_layer(self, layer: nn.Module, h: Tensor, edges: Edges, nodes: Tensor) -> Tensor:
        """States of sources to states of destinations, which are the first of the sources."""
        return layer((h, h[: edges.num_dst]), edges.edge_index())
