"""The networks. Another one is a class here and a YAML file in conf/model/."""

from torch import Tensor, nn


class LinearClassifier(nn.Module):
    """Softmax regression: `(B, 1, 28, 28)` or `(B, 784)` -> logits `(B, num_classes)`."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.reshape(x.size(0), -1))


class MLP(nn.Sequential):
    """Two hidden layers: `(B, 1, 28, 28)` or `(B, 784)` -> logits `(B, num_classes)`."""

    def __init__(self, in_features: int, hidden_features: int, dropout: float, num_classes: int) -> None:
        super().__init__(
            nn.Flatten(),
            *(nn.Linear(in_features, hidden_features), nn.ReLU(), nn.Dropout(dropout)),
            *(nn.Linear(hidden_features, hidden_features), nn.ReLU(), nn.Dropout(dropout)),
            nn.Linear(hidden_features, num_classes),
        )


class LeNet(nn.Sequential):
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling: `(B, 1, 28, 28)` -> logits `(B, num_classes)`."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            *(nn.Conv2d(1, 6, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),  # (B, 6, 14, 14)
            *(nn.Conv2d(6, 16, kernel_size=5), nn.ReLU(), nn.MaxPool2d(2)),  # (B, 16, 5, 5)
            nn.Flatten(),
            *(nn.Linear(16 * 5 * 5, 120), nn.ReLU()),
            *(nn.Linear(120, 84), nn.ReLU()),
            nn.Linear(84, num_classes),
        )
