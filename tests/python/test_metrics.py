"""The exposition is what the official Python client reads, and its counters are the sums of the run's own figures."""

import json
import os
import pathlib
import subprocess
import time
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("SPECFLEET", str(ROOT / "target" / "release" / "specfleet"))


def families(text):
    """Families by name; the parser takes `_total` off counters."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.name not in found, f"{family.name} comes twice"
        found[family.name] = family
    return found


def total(family, **labels):
    """Sum over the samples with these labels."""
    wanted = labels.items()
    samples = [s for s in family.samples if wanted <= s.labels.items() and not s.name.endswith("_created")]
    return sum(sample.value for sample in samples)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run with its metrics scraped while it lingers: (exposition, content type, folder of --out)."""
    place = tmp_path_factory.mktemp("metrics")
    out = place / "out"
    arguments = [
        BINARY, "run", "--ledger", str(place / "runs"), "--out", str(out), "--ui", "none", "--devices", "4", "--prompts", "8",
        "--max-new-tokens", "12", "--methods", "ui-hlm,hlm,block,llm-only", "--set", "device.profile=host", "--set",
        "device.link=real", "--metrics", "0", "--metrics-linger", "120",
    ]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = next(line for line in process.stderr if line.startswith("metrics at ")).split()[2]
            deadline = time.monotonic() + 120
            while not (out / "metrics.prom").exists():
                assert time.monotonic() < deadline and process.poll() is None, "the run does not end well"
                time.sleep(0.1)
            with urllib.request.urlopen(url, timeout=20) as answer:
                yield answer.read().decode(), answer.headers["Content-Type"], out
        finally:
            process.kill()


def test_the_official_parser_reads_it(run):
    text, content_type, out = run
    assert content_type.startswith("text/plain; version=0.0.4")
    for family in families(text).values():
        assert family.type in ("counter", "gauge", "histogram"), family
        assert family.documentation, f"{family.name} has no HELP"
        assert family.samples, f"{family.name} has no sample"
        assert family.name.startswith("specfleet_") and ":" not in family.name
        if family.type == "counter":
            assert all(sample.name == family.name + "_total" for sample in family.samples)
        if family.type == "histogram":
            check_histogram(family)
    assert families((out / "metrics.prom").read_text()).keys() == families(text).keys()


def check_histogram(family):
    """Buckets are cumulative, end in +Inf and agree with the count."""
    series = {}
    for sample in family.samples:
        labels = {key: value for key, value in sample.labels.items() if key != "le"}
        kind = sample.name.removeprefix(family.name)
        series.setdefault(tuple(sorted(labels.items())), {}).setdefault(kind, []).append(sample)
    for kinds in series.values():
        buckets = [(float(sample.labels["le"]), sample.value) for sample in kinds["_bucket"]]
        assert buckets == sorted(buckets) and buckets[-1][0] == float("inf")
        assert [count for _, count in buckets] == sorted(count for _, count in buckets)
        assert buckets[-1][1] == kinds["_count"][0].value and kinds["_sum"][0].value >= 0


def test_counters_equal_the_run(run):
    text, _, out = run
    found = families(text)
    lines = [json.loads(line) for line in (out / "generations.jsonl").read_text().splitlines()]
    methods = {line["method"] for line in lines}
    assert len(methods) == 4
    for method in methods:
        mine = [line for line in lines if line["method"] == method]
        assert total(found["specfleet_generations"], method=method) == len(mine)
        tokens = sum(len(line["token_ids"]) for line in mine)
        assert total(found["specfleet_generation_tokens"], method=method) == tokens
        assert total(found["specfleet_tokens_committed"], method=method) == tokens
        assert total(found["specfleet_upload_decisions"], method=method) == tokens
    summary = json.loads((out / "summary.json").read_text())
    uploads = found["specfleet_uploads"]
    for outcome, name in [("verdict", "verdicts"), ("refused", "refused"), ("cancelled", "cancelled")]:
        assert total(uploads, outcome=outcome) == summary["uploads"][name]
    per_position = total(found["specfleet_spec_decode_num_accepted_tokens_per_pos"])
    accepted = total(found["specfleet_spec_decode_num_accepted_tokens"])
    assert per_position == accepted == total(found["specfleet_tokens_committed"], source="accepted")
