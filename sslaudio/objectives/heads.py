"""What reads the encoder's tokens for a loss, and is thrown away after pretraining."""

from jaxtyping import Float
from torch import Tensor, nn


class Predictor(nn.Module):
    """Linear, GELU, linear: from a token to what is predicted of its patch.

    Source: SSAST (arXiv:2110.09784), section 2.3, with ReLU; its code fixes the output at 256.
    """

    def __init__(self, dim: int, hidden: int, values: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, values)

    def forward(self, tokens: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch values"]:
        """Each token by itself."""
        return self.fc2(nn.functional.gelu(self.fc1(tokens)))
