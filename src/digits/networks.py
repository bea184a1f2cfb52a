"""The networks. Another one is a class here and a YAML file in conf/model/.

Each takes images `(B, channels, size, size)` float32, and says so in `input_shape`, which may be left out.
"""

from torch import Tensor, nn


class LinearClassifier(nn.Module):
    """Softmax regression: images, also as rows `(B, channels * size * size)`, -> logits `(B, num_classes)`."""

    def __init__(self, channels: int, size: int, num_classes: int) -> None:
        super().__init__()
        self.input_shape = (channels, size, size)
        self.linear = nn.Linear(channels * size * size, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.reshape(x.size(0), -1))


class MLP(nn.Sequential):
    """Two hidden layers: images, also as rows `(B, channels * size * size)`, -> logits `(B, num_classes)`."""

    def __init__(self, channels: int, size: int, hidden_features: int, dropout: float, num_classes: int) -> None:
        super().__init__(
            nn.Flatten(),
            *(nn.Linear(channels * size * size, hidden_features), nn.ReLU(), nn.Dropout(dropout)),
            *(nn.Linear(hidden_features, hidden_features), nn.ReLU(), nn.Dropout(dropout)),
            nn.Linear(hidden_features, num_classes),
        )
        self.input_shape = (channels, size, size)


class LeNet(nn.Sequential):
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling: images -> logits `(B, num_classes)`."""

    def __init__(self, channels: int, size: int, num_classes: int) -> None:
        side = (size // 2 - 4) // 2  # 5 for 28 pixels
        if side < 1:
            raise ValueError(f"size={size}: LeNet takes images of 12 x 12 pixels or more")
        super().__init__(
            *(nn.Conv2d(channels, 6, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),  # (B, 6, 14, 14)
            *(nn.Conv2d(6, 16, kernel_size=5), nn.ReLU(), nn.MaxPool2d(2)),  # (B, 16, side, side)
            nn.Flatten(),
            *(nn.Linear(16 * side * side, 120), nn.ReLU()),
            *(nn.Linear(120, 84), nn.ReLU()),
            nn.Linear(84, num_classes),
        )
        self.input_shape = (channels, size, size)
