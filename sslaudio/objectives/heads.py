"""What reads the encoder's tokens for a loss, and is thrown away after pretraining."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

Activation = Literal["gelu", "relu"]
"""What is between the two linear maps of a head."""


class Predictor(nn.Module):
    """Linear, GELU or ReLU, linear: from a token to what is predicted of its patch.

    Source: SSAST (arXiv:2110.09784), section 2.3, with ReLU; its code fixes the output at 256.
    """

    def __init__(self, dim: int, hidden: int, values: int, activation: Activation = "gelu") -> None:
        super().__init__()
        self.activation = nn.GELU() if activation == "gelu" else nn.ReLU()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, values)

    def forward(self, tokens: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch values"]:
        """Each token by itself."""
        return self.fc2(self.activation(self.fc1(tokens)))
