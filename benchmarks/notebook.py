"""The classic first notebook as a plain script: six epochs on all 60,000 images, right answers / all at the end."""

from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

DATA = Path(__file__).parents[1] / "data"


def main() -> None:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    train_set = datasets.MNIST(DATA, train=True, transform=transform, download=True)
    test_set = datasets.MNIST(DATA, train=False, transform=transform, download=True)
    train_loader = DataLoader(train_set, batch_size=16, shuffle=True, num_workers=2)
    test_loader = DataLoader(test_set, batch_size=24, num_workers=2)

    net = nn.Linear(28 * 28, 10).to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    for _ in range(6):
        for x, y in train_loader:
            x, y = x.to(device), y.to(device)
            optimizer.zero_grad()
            loss = criterion(net(x.reshape(x.size(0), -1)), y)
            loss.backward()
            optimizer.step()

    right = total = 0
    with torch.no_grad():
        for x, y in test_loader:
            x, y = x.to(device), y.to(device)
            right += int((net(x.reshape(x.size(0), -1)).argmax(dim=1) == y).sum())
            total += len(y)
    print(f"{right}/{total}")


if __name__ == "__main__":
    main()
