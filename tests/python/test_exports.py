"""Exports open elsewhere: other programs read every file, and count and add up to what the program itself says."""

import csv
import json

import duckdb
import pandas
import pyarrow.parquet
import pytest

TABLES = ["rounds", "generations", "batches", "energy", "audits", "verifiers", "scores"]


@pytest.fixture(scope="module")
def exported(specfleet, real_run, tmp_path_factory):
    """The run in every format, by format."""
    folder = tmp_path_factory.mktemp("exported")
    specfleet("score", real_run.name, "--ledger", real_run.ledger, "--perplexity")
    for format in ("parquet", "csv", "jsonl", "trace"):
        specfleet("export", real_run.name, "--ledger", real_run.ledger, "--format", format, "--out", folder / format)
    return folder


@pytest.fixture(scope="module")
def counts(exported):
    """Rows of each table, as the program counted them."""
    about = json.loads((exported / "parquet" / "run.json").read_text())
    assert about["export_schema"] == 1 and about["damaged_chunks"] == 0
    counts = {file.removesuffix(".parquet"): rows for file, rows in about["rows"].items()}
    assert sorted(counts) == sorted(TABLES) and all(counts.values()), counts
    return counts


def asked(specfleet, run, metrics, **groups):
    """The rows of `specfleet query` as dictionaries."""
    by = groups.get("by")
    group = ["--group-by", by] if by else []
    answer = specfleet("query", run.name, "--ledger", run.ledger, "--metric", ",".join(metrics), *group, "--format", "json")
    return json.loads(answer)


@pytest.mark.parametrize("table", TABLES)
def test_everybody_reads_every_parquet_file(exported, counts, table):
    path = exported / "parquet" / f"{table}.parquet"
    assert duckdb.sql(f"SELECT count(*) FROM '{path}'").fetchall()[0] == (counts[table],)
    # Every value of every column, not only the row count of the footer.
    assert len(duckdb.sql(f"SELECT * FROM '{path}'").fetchall()) == counts[table]
    frame = pandas.read_parquet(path)
    assert len(frame) == counts[table]
    arrow = pyarrow.parquet.read_table(path)
    arrow.validate(full=True)
    assert arrow.num_rows == counts[table] and arrow.column_names == list(frame.columns)


def test_counts_and_sums_are_those_of_query(specfleet, real_run, exported):
    folder = exported / "parquet"
    metrics = ["rounds:count", "uplink_bytes:sum", "attempts:sum"]
    answer = asked(specfleet, real_run, metrics, by="method")
    sql = f"SELECT method, count(*), sum(uplink_bytes), sum(attempts) FROM '{folder}/rounds.parquet' GROUP BY method"
    rows = {method: figures for method, *figures in duckdb.sql(sql).fetchall()}
    assert len(rows) == 3
    assert {row["method"]: [row[metric] for metric in metrics] for row in answer} == rows
    metrics = ["generations:count", "tokens:sum", "energy_device:sum", "energy_radio:sum", "energy_cloud:sum"]
    answer = asked(specfleet, real_run, metrics, by="method")
    frame = pandas.read_parquet(folder / "generations.parquet")
    frame["length"] = frame.tokens.map(len)
    grouped = frame.groupby("method")
    for row in answer:
        own = grouped.get_group(row["method"])
        assert [row["generations:count"], row["tokens:sum"]] == [len(own), own.length.sum()]
        for part in ("device", "radio", "cloud"):
            joules = own[f"{part}_nanojoules"].sum() / 1e9
            assert row[f"energy_{part}:sum"] == pytest.approx(joules, rel=1e-12)
    (row,) = asked(specfleet, real_run, ["batches:count", "batch_tokens:sum", "batch_energy:sum"])
    arrow = pyarrow.parquet.read_table(folder / "batches.parquet").to_pandas()
    assert [row["batches:count"], row["batch_tokens:sum"]] == [len(arrow), arrow.work.sum()]
    assert row["batch_energy:sum"] == pytest.approx(arrow.nanojoules.sum() / 1e9, rel=1e-12)


def test_parts_of_the_energy_are_the_generations_own(exported):
    folder = exported / "parquet"
    sql = "SELECT sum(nanojoules) FROM '{}/energy.parquet' WHERE part = '{}'"
    frame = pandas.read_parquet(folder / "generations.parquet")
    for part in ("device", "radio", "cloud"):
        assert duckdb.sql(sql.format(folder, part)).fetchall()[0][0] == frame[f"{part}_nanojoules"].sum()


def test_scores_are_those_of_query(specfleet, real_run, exported):
    sql = f"SELECT method, scorer, unit, avg(value) FROM '{exported}/parquet/scores.parquet' GROUP BY ALL"
    means = {(method, scorer): (unit, mean) for method, scorer, unit, mean in duckdb.sql(sql).fetchall()}
    scorers = json.loads((exported / "parquet" / "run.json").read_text())["meta"]["scorers"]
    names = {scorer["name"]: scorer["unit"] for scorer in scorers}
    assert {scorer for _, scorer in means} == set(names) and "perplexity" in names
    answer = asked(specfleet, real_run, [f"{name}:mean" for name in names], by="method")
    for (method, name), (unit, mean) in means.items():
        (row,) = (row for row in answer if row["method"] == method)
        # A scorer that looked may have found none in any text of a method.
        assert unit == names[name] and row[f"{name}:mean"] == (mean and pytest.approx(mean, rel=1e-6)), (method, name)


def test_rounds_can_be_grouped_without_a_join(exported):
    frame = pyarrow.parquet.read_table(exported / "parquet" / "rounds.parquet").to_pandas()
    assert set(frame.method) == {"hlm", "ui-hlm", "llm-only"}
    assert frame[["prompt", "repetition", "device", "data_set"]].notna().all().all() and frame.closed.all()
    # Nothing is drafted, and nothing is uncertain, where the verifier writes alone.
    alone = frame[frame.method == "llm-only"]
    assert alone.draft.isna().all() and alone.uncertainty.isna().all() and (alone.source == "verifier").all()
    assert frame[frame.method == "ui-hlm"].uncertainty.notna().any()


@pytest.mark.parametrize("table", TABLES)
def test_csv_and_json_lines_say_the_same(exported, counts, table):
    with open(exported / "csv" / f"{table}.csv", newline="") as file:
        header, *rows = csv.reader(file)
    columns = pyarrow.parquet.read_schema(exported / "parquet" / f"{table}.parquet").names
    assert header == columns and len(rows) == counts[table] and {len(row) for row in rows} == {len(columns)}
    lines = (exported / "jsonl" / f"{table}.jsonl").read_text().splitlines()
    objects = [json.loads(line) for line in lines]
    assert len(objects) == counts[table] and all(list(row) == columns for row in objects)
    for column in (name for name in columns if name.endswith(("_ns", "nanojoules"))):
        place = columns.index(column)
        sums = {sum(int(row[place] or 0) for row in rows), sum(row[column] or 0 for row in objects)}
        arrow = pyarrow.parquet.read_table(exported / "parquet" / f"{table}.parquet", columns=[column])
        assert sums == {sum(value or 0 for value in arrow[column].to_pylist())}, column


def test_the_trace_is_what_viewers_take(exported, counts):
    trace = json.loads((exported / "trace" / "trace.json").read_text())
    events = trace["traceEvents"]
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    complete = [event for event in events if event["ph"] == "X"]
    assert len(complete) + sum(event["ph"] == "M" for event in events) == len(events)
    assert all(event["ts"] >= 0 and event["dur"] >= 0 and (event["pid"], event["tid"]) in named for event in complete)
    assert sum(event["name"] == "batch" and event["pid"] == 1 for event in complete) == counts["batches"]
    assert {"draft", "uplink", "queue", "compute", "downlink", "batch"} <= {event["name"] for event in complete}
    processes = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert processes == {"pool", *(f"device {number}" for number in range(4))}


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_an_export_is_imported(specfleet, real_run, exported, format, tmp_path):
    specfleet("import", exported / format, "--ledger", tmp_path / "ledger", "--name", "back")
    specfleet("export", "back", "--ledger", tmp_path / "ledger", "--format", "jsonl", "--out", tmp_path / "again")
    for table in TABLES:
        before = (exported / "jsonl" / f"{table}.jsonl").read_text().splitlines()
        after = (tmp_path / "again" / f"{table}.jsonl").read_text().splitlines()
        # Energy comes back in the order of generations and verifiers, and rounds generation by generation.
        unordered = table in ("energy", "rounds")
        assert sorted(before) == sorted(after) if unordered else before == after, table


def test_what_pyarrow_wrote_is_imported(specfleet, exported, tmp_path):
    """Another tool's file: everything optional, other encodings and groups, columns in another order."""
    for table in TABLES:
        arrow = pyarrow.parquet.read_table(exported / "parquet" / f"{table}.parquet")
        arrow = arrow.select(sorted(arrow.column_names))
        pyarrow.parquet.write_table(arrow, tmp_path / f"{table}.parquet", compression="snappy", row_group_size=100)
    about = json.loads((exported / "parquet" / "run.json").read_text())
    # The files are others now: who means it takes away what would give that away.
    del about["digests"]
    (tmp_path / "run.json").write_text(json.dumps(about))
    specfleet("import", tmp_path, "--ledger", tmp_path / "ledger", "--name", "back")
    specfleet("export", "back", "--ledger", tmp_path / "ledger", "--format", "jsonl", "--out", tmp_path / "again")
    for table in ("rounds", "generations", "batches", "audits", "verifiers", "scores"):
        before = (exported / "jsonl" / f"{table}.jsonl").read_text().splitlines()
        after = (tmp_path / "again" / f"{table}.jsonl").read_text().splitlines()
        assert sorted(before) == sorted(after) if table == "rounds" else before == after, table
