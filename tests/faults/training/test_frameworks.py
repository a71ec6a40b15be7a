"""Programs of frameworks as docs/training.md has them, on a CPU.

PyTorch for Linux is several GB, with CUDA, so it is nothing that CI installs: TORCH_PYTHON names a Python that has
torch, lightning, accelerate and perhaps ultralytics.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.faults.conftest import Victim
from tests.faults.training.tools import Training, start

PYTHON = os.environ.get("TORCH_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="TORCH_PYTHON names no Python with torch, lightning and accelerate")

# Each worker has its own numbers; only the average of both leads to the line through all of them.
DATA = """
import json, os, torch
rank = int(os.environ["RANK"])
x = torch.arange(8, dtype=torch.float32).reshape(-1, 1) / 8 + rank
y = 2 * x + 1
"""
TORCH = f"""{DATA}
import torch.distributed as dist
dist.init_process_group("gloo")
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
steps = torch.optim.SGD(model.parameters(), lr=0.2)
for epoch in range(1, 201):
    steps.zero_grad()
    loss = torch.nn.functional.mse_loss(model(x), y)
    loss.backward()
    steps.step()
    if rank == 0 and epoch % 50 == 0:
        print(json.dumps({{"epoch": epoch, "epochs": 200, "metrics": {{"loss": loss.item()}}}}), flush=True)
weight, bias = (round(float(p), 2) for p in model.parameters())
print("worker", dist.get_rank(), "of", dist.get_world_size(), "has", weight, bias, flush=True)
dist.destroy_process_group()
"""
LIGHTNING = f"""{DATA}
import lightning

class Line(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def training_step(self, batch):
        return torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.2)

model = Line()
batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8)
trainer = lightning.Trainer(
    num_nodes=int(os.environ["WORLD_SIZE"]), devices=1, accelerator="cpu", max_epochs=200, logger=False,
    enable_checkpointing=False, enable_progress_bar=False, use_distributed_sampler=False,
)
trainer.fit(model, batches)
weight, bias = (round(float(p), 2) for p in model.layer.parameters())
print("worker", trainer.global_rank, "of", trainer.world_size, "has", weight, bias, flush=True)
"""
ACCELERATE = f"""{DATA}
from accelerate import Accelerator
accelerator = Accelerator(cpu=True)
model = torch.nn.Linear(1, 1)
model, steps = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.2))
for epoch in range(200):
    steps.zero_grad()
    accelerator.backward(torch.nn.functional.mse_loss(model(x), y))
    steps.step()
weight, bias = (round(float(p), 2) for p in model.parameters())
print("worker", accelerator.process_index, "of", accelerator.num_processes, "has", weight, bias, flush=True)
accelerator.end_training()
"""


ULTRALYTICS = """
import pathlib, sys, numpy, cv2
from ultralytics import YOLO
home = pathlib.Path(sys.argv[1])
for part in ("train", "val"):
    for kind in ("images", "labels"):
        (home / kind / part).mkdir(parents=True)
    for number in range(4):
        image = numpy.zeros((64, 64, 3), numpy.uint8)
        image[16:48, 16:48] = 255
        cv2.imwrite(str(home / "images" / part / f"{number}.png"), image)
        (home / "labels" / part / f"{number}.txt").write_text("0 0.5 0.5 0.5 0.5\\n")
(home / "data.yaml").write_text(f"path: {home}\\ntrain: images/train\\nval: images/val\\nnames: [square]\\n")
YOLO("yolo11n.yaml").train(
    data=str(home / "data.yaml"), epochs=1, imgsz=64, batch=4, device="cpu", workers=0, plots=False, project=str(home)
)
print("kept", len(list(home.rglob("best.pt"))), flush=True)
"""


def ran(platform: Victim, home: Path, program: str, starter: str) -> Training:
    """Train a program as two workers to its end."""
    path = home / "train.py"
    path.write_text(program, encoding="utf-8")
    training = start(platform, "--workers", "2", "--command", f'{starter} "{path}"', "--env", "OMP_NUM_THREADS=1")
    assert training.until_final().state == "succeeded", training.log()
    return training


def said(training: Training, rank: int) -> str:
    return training.victim.invoke("train.logs", training.id, "--rank", str(rank), check=True).stdout


@pytest.mark.parametrize(
    ("program", "starter"),
    [
        pytest.param(TORCH, f'"{Path(PYTHON).parent / "torchrun"}"', id="PyTorch"),
        pytest.param(LIGHTNING, f'"{PYTHON}"', id="Lightning"),
        pytest.param(ACCELERATE, f'"{Path(PYTHON).parent / "torchrun"}"', id="Accelerate"),
    ],
)
def test_two_workers_find_each_other_and_agree(platform: Victim, tmp_path: Path, program: str, starter: str) -> None:
    training = ran(platform, tmp_path, program, starter)
    for rank in (0, 1):
        assert f"worker {rank} of 2 has 2.0 1.0" in said(training, rank)


def test_ultralytics_trains_alone(platform: Victim, tmp_path: Path) -> None:
    if subprocess.run([PYTHON, "-c", "import ultralytics"], capture_output=True, check=False).returncode:
        pytest.skip("ultralytics is not in TORCH_PYTHON")
    (tmp_path / "train.py").write_text(ULTRALYTICS, encoding="utf-8")
    home = tmp_path / "made"
    offline = ("--env", "YOLO_OFFLINE=true", "--env", f"YOLO_CONFIG_DIR={tmp_path}")
    training = start(platform, "--command", f'"{PYTHON}" "{tmp_path / "train.py"}" "{home}"', *offline)
    assert training.until_final().state == "succeeded", training.log()
    assert "kept 1" in training.log()
