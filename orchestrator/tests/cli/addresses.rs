//! Addresses as people write them, and the names that the live page answers to.

use crate::common::*;
use crate::page::{get_as, start};

/// A small run that is soon over.
const SMALL: [&str; 6] = ["--prompts", "1", "--max-new-tokens", "2", "--methods", "hlm"];

#[test]
fn host_names_and_bare_ports_are_taken() {
    let place = Place::new();
    std::fs::create_dir(place.path("runs")).expect("a folder");
    for listen in ["localhost:0", "0", ":0", "127.0.0.1:0"] {
        let (_page, address) = start(&place, &["dashboard", "--ledger", "runs", "--listen", listen]);
        assert!(address.starts_with("127.0.0.1:"), "{listen}: {address}");
        assert_eq!(get_as(&address, "localhost", "/api/runs").0, 200);
    }
    // The first word of each line is the server's; both are for the loopback alone.
    let servers = ["--dashboard=:0", "--metrics", "localhost:0", "--set", "pool.listen=localhost:0"];
    let output = place.try_run(&[&SMALL[..], &servers].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}", said(&output));
    for server in ["dashboard of runs at http://127.0.0.1:", "metrics at http://127.0.0.1:"] {
        assert!(told.lines().any(|line| line.starts_with(server)), "{told}");
    }
    // A number in TOML, a text in TOML, and what the run has stored of it is read again.
    let scenario = place.file("own.toml", "[pool]\nlisten = 0\n");
    place.run("own", &[&SMALL[..], &[&scenario]].concat()).assert_sound();
    place.run("flag", &[&SMALL[..], &["--set", "pool.listen=:0"]].concat()).assert_sound();
    for out in ["own", "flag"] {
        assert!(printed(&place, &["report", &place.name_of(out)]).contains("VALID"));
    }
}

#[test]
fn addresses_that_cannot_be_used_are_named() {
    let place = Place::new();
    let unknown = "no-such-host.invalid:80";
    let cases: [(&[&str], &[&str]); 9] = [
        (&["dashboard", "--listen", "localhost"], &["--listen", "\"localhost\" is no address; use HOST:PORT"]),
        (&["dashboard", "--listen", "70000"], &["--listen", "\"70000\""]),
        (&["dashboard", "--listen", "::1"], &["--listen", "\"::1\"", "[::1]:8080"]),
        (&["dashboard", "--listen", unknown], &["--listen no-such-host.invalid: the host name cannot be resolved"]),
        (&["run", "--dashboard=no-such-host.invalid:80"], &["--dashboard no-such-host.invalid: "]),
        (&["run", "--metrics", "http://localhost:9464"], &["--metrics", "\"http://localhost:9464\" is no address"]),
        (&["run", "--metrics", unknown], &["--metrics no-such-host.invalid: the host name cannot be resolved"]),
        (&["run", "--set", "pool.listen=no-such-host.invalid:80"], &["no-such-host.invalid: the host name cannot be"]),
        (&["run", "--set", "pool.listen=70000"], &["pool.listen = 70000 is out of range: must lie in 0 to 65535"]),
    ];
    for (arguments, named) in cases {
        let output = place.command(arguments).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        let line = String::from_utf8_lossy(&output.stderr);
        assert!(line.lines().count() == 1 && named.iter().all(|part| line.contains(part)), "{arguments:?}: {line}");
        assert!(output.stdout.is_empty() && !place.path("specfleet-runs").exists(), "{arguments:?}");
    }
}

#[test]
fn the_page_answers_to_the_names_that_it_is_given() {
    let place = Place::new();
    std::fs::create_dir(place.path("runs")).expect("a folder");
    let page = |flags: &[&str]| start(&place, &[&["dashboard", "--ledger", "runs"], flags].concat());
    let (_plain, plain) = page(&["--listen", "0"]);
    let (status, body) = get_as(&plain, "runs.example.org", "/");
    assert_eq!(status, 403);
    assert!(body.contains("\\\"runs.example.org\\\"") && body.contains("--allow-host"), "{body}");

    let names = ["--allow-host", "runs.example.org", "--allow-host", "Other.example.org:8443"];
    let (_named, named) = page(&[&["--listen", "0"][..], &names].concat());
    for host in ["runs.example.org", "RUNS.example.org:8080", "other.example.org:8443", "localhost:80", "[::1]"] {
        assert_eq!(get_as(&named, host, "/api/runs").0, 200, "{host}");
    }
    for host in ["other.example.org", "rebound.example.org", "runs.example.org.rebound.org", "a.runs.example.org"] {
        assert_eq!(get_as(&named, host, "/api/runs").0, 403, "{host}");
    }

    // Where other machines reach it, what this machine asks is checked all the same.
    let (_open, open) = page(&["--listen", "0.0.0.0:0"]);
    let (_both, both) = page(&[&["--listen", "0.0.0.0:0"][..], &names].concat());
    let reached = |address: &str| address.replace("0.0.0.0", "127.0.0.1");
    assert_eq!(get_as(&reached(&open), "anything.example.org", "/api/runs").0, 403);
    assert_eq!(get_as(&reached(&open), "localhost", "/api/runs").0, 200);
    assert_eq!(get_as(&reached(&both), "anything.example.org", "/api/runs").0, 403);
    assert_eq!(get_as(&reached(&both), "runs.example.org", "/api/runs").0, 200);

    for (arguments, named) in [
        (&["dashboard", "--allow-host", "http://runs.example.org"][..], "\"http://runs.example.org\" is no host name"),
        (&["run", "--allow-host", "runs.example.org"], "--dashboard"),
    ] {
        let output = place.command(arguments).output().expect("the binary runs");
        let line = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(line.lines().count() == 1 && line.contains(named), "{line}");
    }
}
