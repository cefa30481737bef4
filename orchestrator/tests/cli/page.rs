//! The live page as a user starts it, beside a run and on its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::common::*;

/// Asks the page at `address`; the status and the body.
fn get(address: &str, path: &str) -> (u16, String) {
    get_as(address, address, path)
}

/// Asks it under another name.
pub(crate) fn get_as(address: &str, host: &str, path: &str) -> (u16, String) {
    let mut connection = TcpStream::connect(address).expect("the page is there");
    connection.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("a whole answer in UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status"), body.to_owned())
}

fn json(address: &str, path: &str) -> Value {
    let (status, body) = get(address, path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

/// Starts a command and reads from its standard error where its page is.
pub(crate) fn start(place: &Place, arguments: &[&str]) -> (Running, String) {
    let child = place.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child: Child = child.expect("the binary runs");
    let mut said = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut line = String::new();
    while !line.contains("http://") {
        line.clear();
        assert!(said.read_line(&mut line).expect("text") > 0, "it ended without saying where the page is");
    }
    // Nobody reads what it says from here on; it must not mind.
    child.stderr = Some(said.into_inner());
    let (_, address) = line.split_once("http://").expect("an address");
    (Running::of(child), address.trim().trim_end_matches('/').to_owned())
}

#[test]
fn a_stored_run_is_shown_until_ctrl_c() {
    let place = Place::new();
    place.run("out", &["--prompts", "2", "--max-new-tokens", "4", "--methods", "slm-only,hlm,ui-hlm"]).assert_sound();
    let run = place.name_of("out");
    let (page, address) = start(&place, &["dashboard", "--ledger", "runs", "--listen", "127.0.0.1:0"]);
    let list = json(&address, "/api/runs");
    assert_eq!((&list["runs"][0]["run"], &list["runs"][0]["generations"]), (&run.as_str().into(), &6.into()));

    let report = json(&address, &format!("/api/runs/{run}/report"));
    assert_eq!((&report["run"]["name"], &report["validity"]["state"]), (&run.as_str().into(), &"VALID".into()));
    let methods: Vec<&str> =
        report["methods"].as_array().expect("a list").iter().filter_map(|m| m["name"].as_str()).collect();
    assert_eq!(methods, ["slm-only", "hlm", "ui-hlm"]);
    // The file holds the same report.
    let (status, file) = get(&address, &format!("/api/runs/{run}/report.html"));
    let island = file.split_once("id=\"reports\">").and_then(|(_, rest)| rest.split_once("</script>")).expect("data").0;
    let inside: Value = serde_json::from_str(island).expect("JSON");
    assert_eq!((status, &inside[0]), (200, &report));

    let both = json(&address, &format!("/api/compare?a={run}&b={run}"));
    assert_eq!((&both["a"], &both["b"]), (&report, &report));

    let (status, _) = page.interrupt(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0));
    assert!(TcpStream::connect(&address).is_err());
}

#[test]
fn a_run_shows_itself() {
    let place = Place::new();
    let arguments = [
        "run",
        "--ledger",
        "runs",
        "--ui",
        "none",
        "--dashboard=127.0.0.1:0",
        "--devices",
        "4",
        "--prompts",
        "400",
        "--methods",
        "ui-hlm",
    ];
    let (run, address) = start(&place, &arguments);
    let name = place.wait_for_generations(1)["run"].as_str().expect("a name").to_owned();
    let tokens = || json(&address, &format!("/api/runs/{name}"))["live"]["tokens"].as_u64();
    let before = tokens();
    let began = std::time::Instant::now();
    while tokens() <= before {
        assert!(began.elapsed() < Duration::from_secs(30), "the figures stand still");
        std::thread::sleep(Duration::from_millis(200));
    }
    let (status, body) = get(&address, &format!("/api/runs/{name}/report"));
    assert!(status == 409 && body.contains("still-running"), "{status} {body}");
    let (status, _) = run.interrupt(Duration::from_secs(12));
    assert_eq!(status.code(), Some(130));
}

#[test]
fn a_port_in_use_is_one_line() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let flag = format!("--dashboard={address}");
    for arguments in
        [vec!["dashboard", "--listen", &address], vec!["run", &flag], vec!["dashboard", "--listen", "nowhere"]]
    {
        let output = place.command(&arguments).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        let line = String::from_utf8_lossy(&output.stderr);
        assert!(line.lines().count() == 1 && line.starts_with("specfleet: "), "{line}");
        assert!(output.stdout.is_empty() && !place.path("specfleet-runs").exists());
    }
}
