//! The live page over real sockets: what it answers, what it refuses, and that nothing about it grows.

mod client;
mod hostile;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use expect_test::expect;
use serde_json::{Value, json};
use specfleet::dashboard::{Dashboard, DashboardOptions};
use specfleet::error::Error;
use specfleet::report_data::ReportData;
use specfleet_ledger::{Live, Meta, RunReader, RunWriter, SCHEMA};
use tempfile::TempDir;

use self::client::{Answer, Stream, ask, ask_with, get};

/// A ledger in a temporary folder, which has room beside it, and its page.
struct Page {
    _folder: TempDir,
    ledger: PathBuf,
    dashboard: Option<Dashboard>,
}

impl Page {
    fn new() -> Page {
        Page::listening_at("127.0.0.1:0".parse().expect("an address"))
    }

    fn listening_at(listen: std::net::SocketAddr) -> Page {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let ledger = folder.path().join("runs");
        fs::create_dir(&ledger).expect("a folder");
        let options = DashboardOptions { ledger: ledger.clone(), listen, allowed_hosts: Vec::new(), report };
        let dashboard = Some(Dashboard::start(options).expect("a free port"));
        Page { _folder: folder, ledger, dashboard }
    }

    fn ledger(&self) -> &Path {
        &self.ledger
    }

    fn address(&self) -> std::net::SocketAddr {
        self.dashboard.as_ref().expect("it runs").address()
    }

    fn get(&self, path: &str) -> Answer {
        get(self.address(), path)
    }

    /// Puts a `meta.json` there.
    fn file(&self, run: &str, meta: &str) {
        let folder = self.ledger().join(run);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("meta.json"), meta).expect("a file");
    }

    fn stored(&self, run: &str, started: u64, more: &Value) {
        let mut meta = meta(run, started);
        let fields = more.as_object().expect("an object").clone();
        meta.as_object_mut().expect("an object").extend(fields);
        self.file(run, &sealed(&meta));
    }

    fn stop(&mut self) {
        self.dashboard.take().expect("it runs").stop();
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        if let Some(dashboard) = self.dashboard.take() {
            dashboard.stop();
        }
    }
}

/// Opens the run and gets no further: these tests are about the way to a report.
fn report(folder: &Path) -> Result<ReportData, Error> {
    RunReader::open(folder)?;
    Err(Error::Stopped("the report"))
}

/// A file of a run as its writer leaves it, with a checksum.
fn sealed(fields: &Value) -> String {
    String::from_utf8(specfleet_files::sealed::seal(fields.to_string().as_bytes())).expect("JSON")
}

fn meta(run: &str, started: u64) -> Value {
    json!({
        "schema": SCHEMA, "run": run, "state": "completed", "pid": 1, "started": started, "ended": started + 9,
        "scenario": "[run]\nname = \"</script><script>alert(1)</script>\"\n", "scenario_hash": "00ff", "seed": 7,
        "devices": 3, "verifiers": 1,
    })
}

#[test]
fn the_list_is_this_json() {
    let page = Page::new();
    page.stored(
        "b",
        1_700_000_100,
        &json!({ "kind": { "simulated": { "fidelity": "trace", "cost": "fixed", "keep_every": 1 } } }),
    );
    page.stored("a", 1_700_000_000, &json!({ "state": "failed", "reason": "the pool has gone", "tags": ["paper"] }));
    page.file("newer", r#"{"schema": 99, "run": "newer"}"#);
    let answer = page.get("/api/runs");
    assert_eq!(answer.status, 200);
    let text = serde_json::to_string_pretty(&answer.json()).expect("JSON");
    let text = text.replace(&page.ledger().display().to_string(), "LEDGER");
    let text = text.replace(&format!("reads up to {SCHEMA}:"), "reads up to SCHEMA:");
    expect![[r#"
        {
          "ledger": "LEDGER",
          "matched": 3,
          "offset": 0,
          "runs": [
            {
              "batches": 0,
              "devices": 3,
              "ended": 1700000109,
              "generations": 0,
              "kind": "simulated",
              "methods": [],
              "rounds": 0,
              "run": "b",
              "scenario_hash": "00ff",
              "seed": 7,
              "started": 1700000100,
              "state": "completed",
              "tags": [],
              "verifiers": 1
            },
            {
              "batches": 0,
              "devices": 3,
              "ended": 1700000009,
              "generations": 0,
              "kind": "live",
              "methods": [],
              "reason": "the pool has gone",
              "rounds": 0,
              "run": "a",
              "scenario_hash": "00ff",
              "seed": 7,
              "started": 1700000000,
              "state": "failed",
              "tags": [
                "paper"
              ],
              "verifiers": 1
            },
            {
              "batches": 0,
              "devices": 0,
              "ended": null,
              "generations": 0,
              "kind": "live",
              "methods": [],
              "reason": "LEDGER/newer/meta.json has schema 99, this program reads up to SCHEMA: use a newer version of the program",
              "rounds": 0,
              "run": "newer",
              "scenario_hash": "",
              "seed": 0,
              "started": 0,
              "state": "unreadable",
              "tags": [],
              "verifiers": 0
            }
          ],
          "total": 3
        }"#]].assert_eq(&text);
}

#[test]
fn runs_that_cannot_be_read_are_listed_with_the_reason_and_hide_no_other() {
    let page = Page::new();
    page.stored("good", 5, &json!({}));
    page.file("damaged", "{\"schema\": 1, \"run\": ");
    page.file("newer", r#"{"schema": 99}"#);
    fs::create_dir(page.ledger().join("no-run")).expect("a folder");
    let list = page.get("/api/runs").json();
    assert_eq!(list["total"], 3);
    let reason = |run: &str| {
        let runs = list["runs"].as_array().expect("runs");
        runs.iter().find(|row| row["run"] == run).expect("listed")["reason"].as_str().unwrap_or_default().to_owned()
    };
    assert!(
        reason("newer").contains("schema 99") && reason("damaged").contains("damaged") && reason("good").is_empty()
    );
    let newer = page.get("/api/runs/newer/report");
    assert_eq!((newer.status, newer.kind().as_str()), (422, "newer-schema"));
    assert_eq!(page.get("/api/runs/damaged").status, 422);
    assert_eq!(page.get("/api/runs/good").json()["seed"], 7);
}

#[test]
fn the_list_is_filtered_and_limited() {
    let page = Page::new();
    for number in 0..7 {
        page.stored(&format!("run-{number}"), number, &json!({}));
    }
    page.stored("other", 100, &json!({ "state": "interrupted" }));
    let names = |query: &str| {
        let list = page.get(&format!("/api/runs?{query}")).json();
        let rows = list["runs"].as_array().expect("runs").clone();
        (
            list["matched"].as_u64().expect("a count"),
            rows.iter().map(|row| row["run"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>(),
        )
    };
    assert_eq!(names("text=OTHER"), (1, vec!["other".to_owned()]));
    assert_eq!(names("text=run+completed&limit=2"), (7, vec!["run-6".to_owned(), "run-5".to_owned()]));
    assert_eq!(names("state=completed&offset=6"), (7, vec!["run-0".to_owned()]));
    for bad in ["limit=0", "limit=501", "limit=x", "state=done", "nonsense=1"] {
        let answer = page.get(&format!("/api/runs?{bad}"));
        assert_eq!((answer.status, answer.kind().as_str()), (400, "bad-request"), "{bad}");
        assert!(!answer.message().contains('\n'));
    }
}

#[test]
fn nothing_is_changed_and_every_answer_says_what_a_browser_may_do() {
    let page = Page::new();
    page.stored("good", 5, &json!({}));
    let paths = [
        "/",
        "/runs/good",
        "/compare",
        "/api/runs",
        "/api/runs/good",
        "/assets/base.js",
        "/assets/nothing.js",
        "/nothing",
        "/events",
    ];
    for path in paths {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            let answer = ask(page.address(), method, path);
            assert_eq!((answer.status, answer.header("allow").as_deref()), (405, Some("GET, HEAD")), "{method} {path}");
        }
        let head = ask(page.address(), "HEAD", path);
        assert!(head.body.is_empty(), "HEAD {path}");
        for answer in [head, ask(page.address(), "POST", path)] {
            let policy = answer.header("content-security-policy").unwrap_or_default();
            assert!(
                policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self' 'sha256-"),
                "{path}: {policy}"
            );
            assert!(
                policy.contains("frame-ancestors 'none'") && !policy.contains("-inline") && !policy.contains("http")
            );
            assert_eq!(answer.header("x-content-type-options").as_deref(), Some("nosniff"));
            assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"));
        }
    }
}

#[test]
fn pages_and_their_files_are_served() {
    let page = Page::new();
    let shell = page.get("/").text();
    // A page holds nothing of a run, whatever its address says.
    assert_eq!(page.get("/runs/%3Cscript%3E").text(), shell.replace("\"./", "\"../"));
    assert!(!shell.contains("=\"/"), "its addresses are relative: {shell}");
    for line in shell.lines().filter_map(|line| line.split_once("/assets/")) {
        let name = line.1.split('"').next().expect("a name");
        let answer = page.get(&format!("/assets/{name}"));
        assert_eq!(answer.status, 200, "{name}");
        let kind = match name.rsplit('.').next() {
            Some("css") => "text/css",
            Some("svg") => "image/svg+xml",
            _ => "text/javascript",
        };
        assert!(answer.header("content-type").unwrap_or_default().starts_with(kind), "{name}");
        assert!(!answer.body.is_empty());
    }
}

#[test]
fn no_path_leaves_the_ledger() {
    let page = Page::new();
    let outside = page.ledger().parent().expect("a parent").join("outside-of-the-ledger");
    fs::create_dir_all(&outside).expect("a folder");
    fs::write(outside.join("meta.json"), sealed(&meta("outside", 1))).expect("a file");
    let names =
        ["..%2Foutside-of-the-ledger", "%2e%2e%2foutside-of-the-ledger", "..", "%2e%2e", "a%00b", ".hidden", "%2Fetc"];
    for name in names {
        for path in
            [format!("/api/runs/{name}"), format!("/api/runs/{name}/report"), format!("/api/compare?a={name}&b={name}")]
        {
            let answer = page.get(&path);
            assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
            assert!(!answer.text().contains("scenario_hash"), "{path}");
        }
    }
    for path in ["/assets/../Cargo.toml", "/assets/..%2f..%2fCargo.toml", "/../../etc/passwd", "/api/runs/../../x"] {
        assert!(matches!(page.get(path).status, 400 | 404), "{path}");
    }
}

#[test]
fn an_unknown_run_comes_with_the_nearest() {
    let page = Page::new();
    page.stored("20261124-024931-d8fd", 5, &json!({}));
    for path in ["/api/runs/20261124-024931-d8fe", "/api/runs/20261124-024931-d8fe/report"] {
        let answer = page.get(path);
        assert_eq!((answer.status, answer.kind().as_str()), (404, "not-found"));
        assert!(answer.message().ends_with("did you mean 20261124-024931-d8fd?"), "{}", answer.message());
    }
}

#[test]
fn a_page_of_another_site_cannot_ask() {
    let page = Page::new();
    let asked = |host: &str| ask_with(page.address(), "GET", "/api/runs", host, "").status;
    assert_eq!(asked("localhost:8080"), 200);
    assert_eq!(asked("rebound.example.org"), 403);
    // What a script of that page could add is not listened to.
    let forged = "X-Forwarded-Host: localhost\r\nForwarded: host=localhost\r\n";
    assert_eq!(ask_with(page.address(), "GET", "/api/runs", "rebound.example.org", forged).status, 403);
}

#[test]
fn a_running_run_is_shown_by_its_plain_files() {
    let page = Page::new();
    let mut about: Meta = serde_json::from_value(meta("going", 5)).expect("a description");
    about.state = specfleet_ledger::RunState::Running;
    let mut writer = RunWriter::create(page.ledger(), about).expect("a run");
    let mut live = Live { seconds: 1.5, method: "ui-hlm".to_owned(), tokens: 10, ..Live::default() };
    writer.put_live(&live).expect("written");

    let told = page.get("/api/runs/going").json();
    assert_eq!((&told["state"], &told["live"]["tokens"]), (&json!("running"), &json!(10)));
    // Its writer holds the store.
    let report = page.get("/api/runs/going/report");
    assert_eq!((report.status, report.kind().as_str()), (409, "still-running"));

    let mut stream = Stream::open(page.address());
    assert_eq!(stream.event("live")["runs"][0]["live"]["tokens"], 10);
    assert_eq!(stream.event("runs")["total"], 1);
    live.tokens = 20;
    writer.put_live(&live).expect("written");
    assert_eq!(stream.event("live")["runs"][0]["live"]["tokens"], 20);
    writer.finish(specfleet_ledger::RunState::Completed).expect("ended");
    assert_eq!(stream.event("live")["runs"], json!([]));
    assert_eq!(page.get("/api/runs/going").json()["state"], "completed");
}

#[test]
fn open_pages_are_counted() {
    let page = Page::new();
    let mut streams: Vec<Stream> = (0..32).map(|_| Stream::open(page.address())).collect();
    let refused = page.get("/events");
    assert_eq!((refused.status, refused.kind().as_str()), (503, "too-many-clients"));
    assert_eq!(refused.header("retry-after").as_deref(), Some("2"));
    // A page that is closed makes room.
    streams.pop();
    let began = Instant::now();
    while page.get_head_of_events() != 200 {
        assert!(began.elapsed() < Duration::from_secs(20), "the place of a closed page stays taken");
        std::thread::sleep(Duration::from_millis(200));
    }
}

impl Page {
    /// The status of `/events`, and away again.
    fn get_head_of_events(&self) -> u16 {
        Stream::status(self.address())
    }
}

#[test]
fn it_stops_in_time_with_pages_open() {
    let mut page = Page::new();
    let mut streams: Vec<Stream> = (0..3).map(|_| Stream::open(page.address())).collect();
    let address = page.address();
    let began = Instant::now();
    page.stop();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(streams.iter_mut().all(Stream::has_ended));
    assert!(std::net::TcpStream::connect(address).is_err(), "the port is free again");
}

#[test]
fn a_taken_port_is_a_mistake_of_the_user() {
    let page = Page::new();
    let options = DashboardOptions {
        ledger: page.ledger().to_path_buf(),
        listen: page.address(),
        allowed_hosts: Vec::new(),
        report,
    };
    let error = Dashboard::start(options).expect_err("it is taken");
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(text.contains(&page.address().to_string()) && !text.contains('\n'), "{text}");
}
