"""Heads of methods with a teacher: projectors, predictors and prototypes.

Sources: BYOL (arXiv 2006.07733), DINO (arXiv 2104.14294), iBOT (arXiv 2111.07832) and the official
code of the last two, whose names of parameters these are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slowfast_maskfeat.backbones.batch_norm import BatchNorm
from slowfast_maskfeat.backbones.initialization import initialize_predictor


class MLPHead(nn.Module):
    """Linear layers with batch norm and ReLU between them: a projector or predictor of BYOL.

    Args:
        width: width D of the input.
        out_dim: width of the output.
        hidden_dim: width between the layers.
        num_layers: number of linear layers.
        batch_norm: normalize before each ReLU.
        all_processes: see `BatchNorm`.
        hidden_bias: layers before a batch norm have a bias; without batch norm all layers do. The
            official code of BYOL has it there, PySlowFast and lightly have none.
        last_bias: the last layer has a bias. PySlowFast and lightly have it, BYOL has none.
    """

    def __init__(
        self,
        width: int,
        out_dim: int,
        *,
        hidden_dim: int = 4096,
        num_layers: int = 2,
        batch_norm: bool = True,
        all_processes: bool = True,
        hidden_bias: bool = True,
        last_bias: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(num_layers - 1):
            layers.append(nn.Linear(width, hidden_dim, bias=hidden_bias or not batch_norm))
            if batch_norm:
                layers.append(BatchNorm(hidden_dim, all_processes=all_processes))
            layers.append(nn.ReLU())
            width = hidden_dim
        layers.append(nn.Linear(width, out_dim, bias=last_bias))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Project features: (B, D) -> (B, out_dim)."""
        projected: Tensor = self.layers(features)
        return projected


class WeightNormLinear(nn.Module):
    """Linear layer without bias whose weight rows are directions with learned lengths.

    Source: Salimans and Kingma, "Weight Normalization" (NeurIPS 2016); the names are those of
    torch's `weight_norm`.

    Args:
        width: width D of the input.
        out_dim: number of rows K.
        fixed_length: the lengths stay 1.
    """

    def __init__(self, width: int, out_dim: int, *, fixed_length: bool) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(out_dim, 1), requires_grad=not fixed_length)
        self.weight_v = nn.Parameter(nn.Linear(width, out_dim, bias=False).weight.detach())

    def forward(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., K)."""
        length = torch.linalg.vector_norm(self.weight_v, dim=1, keepdim=True)
        return F.linear(features, self.weight_v * (self.weight_g / length))


class DINOHead(nn.Module):
    """An MLP to a bottleneck of length 1, and its cosines with K prototypes.

    Args:
        width: width D of the input.
        out_dim: number of prototypes K.
        hidden_dim: width of the hidden layers of the MLP.
        bottleneck_dim: width of its output.
        num_layers: number of its linear layers.
        batch_norm: normalize before each GELU.
        all_processes: see `BatchNorm`.
        norm_last_layer: the prototypes have the length 1; else they learn it.
    """

    def __init__(
        self,
        width: int,
        out_dim: int,
        *,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        num_layers: int = 3,
        batch_norm: bool = False,
        all_processes: bool = True,
        norm_last_layer: bool = True,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(num_layers - 1):
            layers.append(nn.Linear(width, hidden_dim))
            if batch_norm:
                layers.append(BatchNorm(hidden_dim, all_processes=all_processes))
            layers.append(nn.GELU())
            width = hidden_dim
        last = nn.Linear(width, bottleneck_dim)
        self.mlp = nn.Sequential(*layers, last) if layers else last  # as the official code names it
        self.mlp.apply(initialize_predictor)
        self.last_layer = WeightNormLinear(bottleneck_dim, out_dim, fixed_length=norm_last_layer)

    def bottleneck(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., bottleneck_dim), of length 1."""
        return F.normalize(self.mlp(features), dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        """Logits of the prototypes: (..., D) -> (..., K)."""
        logits: Tensor = self.last_layer(self.bottleneck(features))
        return logits


class IBOTHead(DINOHead):
    """A DINO head with prototypes of patch tokens beside those of whole views.

    Args:
        width: width D of the input.
        out_dim: number of prototypes K of a view.
        patch_out_dim: number of prototypes of a patch token; `out_dim` if they are shared.
        shared: both are the same ones, which then have two names in the state.
        **options: of `DINOHead`.
    """

    def __init__(
        self, width: int, out_dim: int, *, patch_out_dim: int, shared: bool, **options: object
    ) -> None:
        super().__init__(width, out_dim, **options)  # type: ignore[arg-type]
        assert not shared or patch_out_dim == out_dim, (patch_out_dim, out_dim)
        self.last_layer2 = self.last_layer
        if not shared:
            bottleneck_dim = self.last_layer.weight_v.shape[1]
            fixed_length = not self.last_layer.weight_g.requires_grad
            self.last_layer2 = WeightNormLinear(
                bottleneck_dim, patch_out_dim, fixed_length=fixed_length
            )

    def patch_logits(self, bottleneck: Tensor) -> Tensor:
        """Logits of patch tokens from `bottleneck`, linear: (..., bottleneck_dim) -> (..., K)."""
        logits: Tensor = self.last_layer2(bottleneck)
        return logits
