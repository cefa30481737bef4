//! Systems with little room: one line, exit code 1, and never a hang or a panic. And simulations that would never end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use expect_test::expect;

use crate::bad_input::refused_at;
use crate::common::*;

const RUN: [&str; 9] = ["run", "--methods", "hlm", "--prompts", "1", "--max-new-tokens", "1", "--ledger", "runs"];

/// Calls the binary by a program that sets limits; fails if it does not end by itself.
fn limited(place: &Place, limits: &[&str], arguments: &[&str]) -> Output {
    let mut command = Command::new(limits[0]);
    command.args(&limits[1..]).arg(env!("CARGO_BIN_EXE_specfleet")).args(arguments);
    let child = command.current_dir(place.path("")).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("prlimit runs");
    let started = Instant::now();
    while child.try_wait().expect("it is ours").is_none() {
        if started.elapsed() > Duration::from_secs(60) {
            child.kill().expect("it is ours");
            panic!("{limits:?}: still running after a minute");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().expect("it has ended")
}

/// It went well, or it was refused in one line that speaks of the limit.
fn assert_orderly(limits: &str, output: &Output, says: &str) {
    if output.status.success() {
        return;
    }
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{limits}: {}", said(output));
    assert_eq!(error.lines().count(), 1, "{limits}: {}", said(output));
    assert!(error.contains(says), "{limits}: {}", said(output));
}

#[test]
fn few_open_files_are_refused_before_anything_runs() {
    let place = Place::new();
    for files in [8, 12, 16, 20, 24, 28, 32, 36, 40, 48, 64] {
        let limits = format!("--nofile={files}");
        let output = limited(&place, &["prlimit", &limits], &[&RUN[..], &FAST].concat());
        assert!(files > 16 || !output.status.success(), "{limits}: {}", said(&output));
        assert_orderly(&limits, &output, "files at the same time: Too many open files");
    }
    assert!(place.runs().iter().all(|run| run["state"] == "completed"), "{:?}", place.runs());
}

#[test]
fn a_small_stack_does_not_matter() {
    let place = Place::new();
    let output = limited(&place, &["prlimit", "--stack=65536"], &[&RUN[..], &FAST].concat());
    assert!(output.status.success(), "{}", said(&output));
}

/// Root has no limit of its own on threads, so that it calls the binary as somebody else.
#[test]
fn few_threads_are_refused_before_anything_runs() {
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    let place = Place::new();
    let somebody: &[&str] =
        if root { &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "prlimit"] } else { &["prlimit"] };
    if root {
        let everybody = fs::Permissions::from_mode(0o777);
        fs::set_permissions(place.path(""), everybody).expect("ours");
        let may = Command::new(somebody[0])
            .args(&somebody[1..somebody.len() - 1])
            .args([env!("CARGO_BIN_EXE_specfleet"), "--version"])
            .output();
        if !may.is_ok_and(|output| output.status.success()) {
            // Nobody else can call the binary where it lies.
            return;
        }
    }
    // Somebody who has more threads already is refused the first one.
    for threads in [1, 2, 4, 8, 12, 16, 18, 20, 24, 32, 64] {
        let limits = format!("--nproc={threads}");
        let output = limited(&place, &[somebody, &[&limits]].concat(), &[&RUN[..], &FAST].concat());
        assert!(threads > 8 || !output.status.success(), "{limits}: {}", said(&output));
        assert_orderly(&limits, &output, "Resource temporarily unavailable");
    }
}

#[test]
fn threads_have_a_range() {
    let quick = ["--methods", "hlm", "--prompts", "1", "--max-new-tokens", "1", "--ui", "none"];
    let refused = |count: &str, expected| {
        refused_at(&Place::new(), &[&["simulate", "--threads", count][..], &quick].concat(), expected);
    };
    refused("40000", expect!["specfleet: invalid value '40000' for '--threads <N>': 40000 is not in 1..=1024"]);
    refused("0", expect!["specfleet: invalid value '0' for '--threads <N>': 0 is not in 1..=1024"]);
    // More than there is work for are not started, and change nothing.
    let place = Place::new();
    let with = |threads: &str| {
        let output = call(&place, &[&["simulate", "--json", "--threads", threads][..], &quick, &FIXED].concat());
        assert!(output.status.success(), "{}", said(&output));
        let mut summary: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        summary["run"].take();
        summary["methods"].take()
    };
    assert_eq!(with("1024"), with("1"));
}

#[test]
fn outages_that_let_nothing_through_are_refused() {
    let refused = |arguments: &[&str], expected| {
        let quick = ["--methods", "hlm", "--prompts", "1", "--max-new-tokens", "1", "--ui", "none"];
        refused_at(&Place::new(), &[arguments, &quick].concat(), expected);
    };
    let outages = ["--set", "device.outage_every_seconds=0.001", "--set", "device.outage_seconds=1000000"];
    refused(
        &[&["simulate"][..], &outages].concat(),
        expect![[
            r#"specfleet: --set: device.outage_every_seconds: between outages of 1000000s every 1ms next to no upload gets its verdict: one takes at least 12ms on link "fair"; take a longer time between outages, or shorter outages"#
        ]],
    );
    refused(
        &[&["run"][..], &outages].concat(),
        expect![[
            r#"specfleet: --set: device.outage_every_seconds: between outages of 1000000s every 1ms next to no upload gets its verdict: one takes at least 12ms on link "fair"; take a longer time between outages, or shorter outages"#
        ]],
    );
    let place = Place::new();
    let fleet = "[fleet.far]\nweight = 1\nprofile = \"phone\"\nlink = \"poor\"\noutage_every_seconds = 0.001\noutage_seconds = 1\n";
    let scenario = place.file("far.toml", fleet);
    refused_at(
        &place,
        &["simulate", &scenario, "--methods", "hlm", "--prompts", "1", "--ui", "none"],
        expect![[
            r#"specfleet: FOLDER/far.toml: fleet.far: between outages of 1s every 1ms next to no upload gets its verdict: one takes at least 12ms on link "poor"; take a longer time between outages, or shorter outages"#
        ]],
    );
}

/// Each pass waits for an arrival of the largest time that a file may have; nineteen of them are more than a clock of 64 bits
/// can show in nanoseconds.
#[test]
fn a_simulation_ends_with_its_virtual_time() {
    let place = Place::new();
    let file = format!("load.file={}", place.file("at.csv", "0\n1e9\n"));
    let load = ["--set", "load.pattern=csv", "--set", &file, "--seeds", "19"];
    let quick = ["simulate", "--methods", "slm-only", "--devices", "1", "--prompts", "2", "--max-new-tokens", "1"];
    let output = call(&place, &[&quick[..], &load, &["--ui", "none"], &FIXED].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("virtual time has come to its end"), "{error}");
}

/// Sets the clock on the wall while a file is there, and no other clock.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && clock == CLOCK_REALTIME && !access(getenv("CLOCK_SET"), F_OK)) now->tv_sec += atol(getenv("CLOCK_BY"));
    return failed;
}
"#;

/// `specfleet` with a clock that is set by so many seconds as soon as the file `set` is there.
fn with_clock(place: &Place, by: &str, arguments: &[&str]) -> Command {
    let source = place.file("clock.c", CLOCK);
    let library = text(&place.path("clock.so"));
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o", &library, &source, "-ldl"]).status();
    assert!(built.expect("a C compiler, which this program needs too").success());
    let mut command = place.command(arguments);
    command.env("LD_PRELOAD", library).env("CLOCK_SET", place.path("set")).env("CLOCK_BY", by);
    command
}

#[test]
fn a_clock_before_1970_is_refused_in_one_line() {
    let place = Place::new();
    place.file("set", "");
    let output = with_clock(&place, "-3000000000", &[&RUN[..], &FAST].concat()).output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(error.lines().count() == 1 && error.contains("clock is before 1970"), "{error}");
    assert!(!place.path("runs").exists(), "nothing was begun");
    // It was the clock.
    let output = with_clock(&place, "0", &["runs"]).output().expect("it runs");
    assert!(output.status.success(), "{}", said(&output));
}

/// A run lasts as long as it lasted, whatever somebody does to the clock meanwhile.
#[test]
fn a_clock_that_is_set_back_ends_no_run_before_its_start() {
    let place = Place::new();
    let long = ["--devices", "8", "--prompts", "400", "--max-new-tokens", "32", "--methods", "ui-hlm,hlm,slm-only"];
    let mut command = with_clock(&place, "-3600", &["run", "--ledger", "runs", "--ui", "none"]);
    let child = command.args(long).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let running = Running::of(child);
    place.wait_for_generations(2);
    place.file("set", "");
    let (status, error) = running.interrupt(Duration::from_secs(20));
    assert_eq!(status.code(), Some(130), "{error}");
    let run = &place.runs()[0];
    let seconds = |field: &str| run[field].as_u64().unwrap_or_else(|| panic!("{field} is there: {run}"));
    assert!((seconds("started")..seconds("started") + 600).contains(&seconds("ended")), "{run}");
}
