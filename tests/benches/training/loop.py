"""Trains a small network on PNG images, as training loops do: a DataLoader's workers read and decode, and it learns.

usage: loop.py EPOCHS WORKERS. Says with what it decodes when it has loaded all it takes. Then it reads where the images
are from a line of its input, a folder or http://HOST:PORT/BUCKET/FOLDER, and prints a line of JSON after each epoch."""
import json, os, sys, time, zlib
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from decode import DECODER, SIDE, pixels
from s3 import Objects

CLASSES, BATCH = 16, 32


class Folder:
    def __init__(self, root):
        self.root = root

    def names(self):
        return [os.path.relpath(os.path.join(at, name), self.root) for at, _, names in os.walk(self.root) for name in names]

    def read(self, name):
        with open(os.path.join(self.root, name), "rb") as f:
            return f.read()


class Images(Dataset):
    def __init__(self, place):
        self.source = Objects(place) if place.startswith("http://") else Folder(place)
        self.names = sorted(self.source.names())

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        name = self.names[i]
        content = self.source.read(name)
        image = torch.frombuffer(pixels(content), dtype=torch.uint8).reshape(SIDE, SIDE, 3).permute(2, 0, 1)
        # Pictures of one folder are of one class.
        return image.float() / 255, zlib.crc32(os.path.dirname(name).encode()) % CLASSES, len(content)


def network():
    wide = lambda channels, to: [nn.Conv2d(channels, to, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*wide(3, 48), *wide(48, 64), *wide(64, 64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


epochs, workers = int(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(0)
torch.set_num_threads(1)
model = network()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)


def step(images, labels):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()


# The first step prepares much that the later ones find.
step(torch.zeros(BATCH, 3, SIDE, SIDE), torch.zeros(BATCH, dtype=torch.long))
print(DECODER, flush=True)
place = sys.stdin.readline().strip()
began = time.perf_counter()
loader = DataLoader(Images(place), BATCH, shuffle=True, num_workers=workers, persistent_workers=True,
                    generator=torch.Generator().manual_seed(0))
for _ in range(epochs):
    stepping, images, size = 0.0, 0, 0
    for batch, labels, sizes in loader:
        stepped = time.perf_counter()
        step(batch, labels)
        stepping += time.perf_counter() - stepped
        images, size = images + len(batch), size + int(sizes.sum())
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "waiting": seconds - stepping, "images": images, "bytes": size}), flush=True)
    began = time.perf_counter()
