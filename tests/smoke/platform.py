"""The running platform as an application sees it: the contract, and what `invoke status` says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from infra.settings import ROOT

STORES = {"EXTERNAL": "minio-datasets", "INTERNAL": "minio-results"}
"""Prefix of the contract's variables -> name of the service."""

PYTHON = "python" if shutil.which("python") else "python3"
"""What a user of this machine calls it: a bare Debian has no `python` outside an environment."""


@dataclass(frozen=True)
class Platform:
    """A platform on a tier; it must run already."""

    tier: str

    def invoke(self, *arguments: str, timeout: float = 120, fixed: bool = False) -> subprocess.CompletedProcess[str]:
        """Run `invoke ... --tier T`; `fixed`: a task of one tier, which has no such option."""
        return subprocess.run(
            [sys.executable, "-m", "invoke", *arguments, *([] if fixed else ["--tier", self.tier])],
            cwd=ROOT,
            env=os.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=timeout,
            check=False,
        )

    def data(self, *arguments: str, timeout: float = 120, fixed: bool = False) -> Any:
        """The `data` of a command's JSON envelope, whatever the exit code."""
        done = self.invoke(*arguments, "--output", "json", timeout=timeout, fixed=fixed)
        envelope = json.loads(done.stdout)
        assert envelope["status"] == "ok", f"invoke {arguments}: {envelope['error']}"
        return envelope["data"]

    @cached_property
    def contract(self) -> Mapping[str, str]:
        """The variables of the `.env` contract."""
        found: Mapping[str, str] = self.data("env")
        return found

    @cached_property
    def status(self) -> Mapping[str, Any]:
        """What runs and what it lacks."""
        found: Mapping[str, Any] = self.data("status")
        return found

    def gap(self, feature: str) -> str:
        """Why the tier, or an engine on it, lacks the feature; '' when it has it."""
        return next((str(g["reason"]) for g in self.status["gaps"] if g["feature"] == feature), "")

    def service(self, name: str) -> Mapping[str, Any] | None:
        """A service's entry in the status; None when it does not run."""
        found = next((s for s in self.status["services"] if s["name"] == name), None)
        return found if found and found["state"] != "stopped" else None

    def storage(self, prefix: str, secret: str = "", signature: str = "s3v4") -> Any:
        """An S3 client for a store (a key of `STORES`), with another secret or another kind of signature."""
        import boto3
        from botocore.config import Config

        config = Config(s3={"addressing_style": "path"}, signature_version=signature, retries={"total_max_attempts": 2})
        return boto3.client(
            "s3",
            endpoint_url=self.contract[f"{prefix}_STORAGE_ENDPOINT"],
            aws_access_key_id=self.contract[f"{prefix}_STORAGE_ACCESS_KEY"],
            aws_secret_access_key=secret or self.contract[f"{prefix}_STORAGE_SECRET_KEY"],
            region_name="us-east-1",
            config=config,
        )
