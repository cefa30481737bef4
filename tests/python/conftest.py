"""What the Python tests share: the release binary, and a small run of real models in a ledger of its own."""

import json
import os
import pathlib
import subprocess
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("SPECFLEET", str(ROOT / "target" / "release" / "specfleet"))


@pytest.fixture(scope="session")
def specfleet():
    """Calls the program; fails if it does."""
    assert os.access(BINARY, os.X_OK), f"{BINARY} is missing: cargo build --release, or set SPECFLEET"

    def call(*arguments, **options):
        command = [BINARY, *map(str, arguments)]
        done = subprocess.run(command, text=True, capture_output=True, timeout=120, **options)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return call


@pytest.fixture(scope="session")
def real_run(specfleet, tmp_path_factory):
    """A run of three methods: its name, its ledger, and its summary."""
    ledger = tmp_path_factory.mktemp("real") / "ledger"
    said = specfleet(
        "run", "--prompts", 4, "--methods", "hlm,ui-hlm,llm-only", "--devices", 4, "--max-new-tokens", 24, "--json",
        "--ledger", ledger,
    )
    (listed,) = json.loads(specfleet("runs", "--ledger", ledger, "--json"))
    return types.SimpleNamespace(name=listed["run"], ledger=ledger, summary=json.loads(said))
