"""What is run: nothing that is unsigned, altered, somebody else's, or over."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from infra.errors import PlatformError
from infra.training import orders
from infra.training.orders import OrderRefused, Orders
from infra.training.request import JOB, SUBPROCESS, Request, workflow_id

REQUEST = Request("mine-20261123-abcdef", command=["python", "train.py"], cwd="/home/me")
WORKFLOW = "training-mine-20261123-abcdef"
posix = pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")


@pytest.fixture
def ours(tmp_path: Path) -> Orders:
    return orders.open_orders(tmp_path / "training" / "orders")


def test_an_order_is_accepted_until_its_training_has_ended(ours: Orders) -> None:
    placed = ours.place(REQUEST, {"HF_TOKEN": "t"})
    for _ in range(2):  # a second try, perhaps by another worker
        ours.check(placed, WORKFLOW, SUBPROCESS)
        assert ours.environment(placed.job) == {"HF_TOKEN": "t"}
    ours.close(placed.job)
    with pytest.raises(OrderRefused, match="not run again"):
        ours.check(placed, WORKFLOW, SUBPROCESS)
    assert ours.environment(placed.job) == {}
    assert ours.authentic(placed), "it can be ordered again"


def test_every_field_is_signed(ours: Orders) -> None:
    placed = ours.place(REQUEST, {})
    other: dict[type, Any] = {str: "other", int: 7, list: ["other"]}
    for entry in dataclasses.fields(Request):
        value = getattr(placed, entry.name)
        altered = dataclasses.replace(placed, **{entry.name: other[type(value)]})
        with pytest.raises(OrderRefused, match="signature is wrong"):
            ours.check(altered, WORKFLOW, altered.runner)


def test_where_words_end_is_signed_too(ours: Orders) -> None:
    placed = ours.place(dataclasses.replace(REQUEST, command=["a", "b c"]), {})
    with pytest.raises(OrderRefused, match="signature is wrong"):
        ours.check(dataclasses.replace(placed, command=["a b", "c"]), WORKFLOW, SUBPROCESS)


def test_who_has_another_key_signs_nothing(ours: Orders, tmp_path: Path) -> None:
    foreign = orders.open_orders(tmp_path / "other")
    with pytest.raises(OrderRefused, match="key of another stack"):
        ours.check(foreign.place(REQUEST, {}), WORKFLOW, SUBPROCESS)


def test_what_is_not_for_this_workflow_or_worker_is_refused(ours: Orders) -> None:
    placed = ours.place(REQUEST, {})
    with pytest.raises(OrderRefused, match="workflow"):
        ours.check(placed, "another", SUBPROCESS)
    with pytest.raises(OrderRefused, match="runner"):
        ours.check(placed, WORKFLOW, JOB)


def test_a_newer_order_of_the_same_name_does_not_bring_the_older_one_back(ours: Orders) -> None:
    first = ours.place(REQUEST, {}, now=1000)
    ours.place(REQUEST, {}, now=2000)
    with pytest.raises(OrderRefused, match="not run again"):
        ours.check(first, WORKFLOW, SUBPROCESS)


@pytest.mark.parametrize("job", ["../evil", "a/b", "A", "x" * 101, "", "a\n", "-a", ".."])
def test_a_name_that_leads_elsewhere_is_refused_even_when_it_is_signed(ours: Orders, tmp_path: Path, job: str) -> None:
    bare = Orders(ours.key)
    signed = bare.place(Request(job, runner=JOB), {})
    with pytest.raises(OrderRefused, match="name"):
        ours.check(signed, workflow_id(job), JOB)
    (tmp_path / "training" / "evil.json").write_text("{}")
    ours.close(job)
    assert (tmp_path / "training" / "evil.json").exists()


@posix
def test_key_and_values_are_private_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = orders.open_orders(tmp_path / "orders")
        made.place(REQUEST, {"HF_TOKEN": "t"})
    finally:
        os.umask(before)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in [tmp_path / "orders", *(tmp_path / "orders").iterdir()]}
    assert modes == {"orders": 0o700, "key": 0o600, f"{REQUEST.job}.json": 0o600}


def test_many_at_once_make_one_key(tmp_path: Path) -> None:
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(orders.open_orders(tmp_path / "o").key)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1


def test_a_damaged_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "_KEY_PATIENCE", 0.0)
    (tmp_path / "key").write_text("half")
    with pytest.raises(PlatformError) as caught:
        orders.open_orders(tmp_path)
    assert (caught.value.code, str(tmp_path / "key") in caught.value.what) == ("DATA_INCOMPATIBLE", True)


def test_from_the_environment(tmp_path: Path) -> None:
    assert orders.from_environment({}) is None
    assert orders.from_environment({orders.KEY: "k" * 64}) == Orders(b"k" * 64)
    with_directory = orders.from_environment({orders.DIRECTORY: str(tmp_path / "o")})
    assert with_directory is not None
    assert with_directory.directory == tmp_path / "o"
    with pytest.raises(PlatformError) as caught:
        orders.from_environment({orders.KEY: "short"})
    assert caught.value.code == "USAGE"


def test_without_a_directory_no_program_of_a_worker_is_ordered() -> None:
    with pytest.raises(PlatformError) as caught:
        Orders(b"k" * 64).place(REQUEST, {})
    assert caught.value.code == "USAGE"


def test_the_key_does_not_show() -> None:
    assert "kkkk" not in repr(Orders(b"k" * 64))


def test_an_order_of_an_earlier_version_is_still_valid(ours: Orders) -> None:
    placed = ours.place(REQUEST, {}, now=1000)
    fields = {name: value for name, value in dataclasses.asdict(placed).items() if name != "signature"}
    # What was signed before there were workers.
    known = ("job", "epochs", "dataset", "command", "cwd", "runner", "image", "gpus", "issued")
    text = json.dumps({name: fields[name] for name in known}, sort_keys=True, separators=(",", ":"))
    signature = hmac.new(ours.key, b"training order 1\n" + text.encode(), hashlib.sha256).hexdigest()
    assert placed.signature == signature
