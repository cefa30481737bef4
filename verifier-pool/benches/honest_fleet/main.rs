//! What an honest fleet notices of strangers that attack its pool (Linux): a table with a row for each attack and each
//! kind of fleet.
//!
//! ```text
//! cargo bench -p verifier-pool --bench honest_fleet [-- [ROW]… [--repeats N] [--fast]]
//! ```
//!
//! ROW is the beginning of a row's name, such as `A2/`, `A2/pool` or `A10/pool/metrics-40`. The programs `specfleet`,
//! `verifier-pool` and `device-agent` are those in the folder SPECFLEET_BIN_DIR, else those beside this one: build them
//! before (`cargo build --release --workspace`).
//!
//! **Fleets.** *run*: `specfleet run` with 8 devices and 2 verifiers, methods `ui-hlm` and `hlm` (for A4 `price`).
//! *pool*: `verifier-pool` with 2 verifiers, and 8 `device-agent`s at a time which write 80 answers in all, each a
//! process of its own, so that there are new connections all the time. They are phones on a fair link; with `--fast` as
//! fast as this machine.
//!
//! **Attacks.** A2: 24 greeted connections, which is all places, that ask for nothing. A3: 40 first packets of
//! handshakes a second that nobody follows up; beside it 15 newcomers, one each half second. A4: 50 uploads a second
//! that are refused and claim to be long. A5: valid work of a stranger. A8: uploads that are refused, as many as go
//! through. A9: 40 connections that send one byte of a frame a second. A10: connections that ask 60 times each for a
//! page or figures and read nothing, as many as the row says. A client without the token of a run gets no further than
//! to its greeting (A2, A4, A5, A8): it calls again, 200 times a second (A4: 50).
//!
//! **Legs.** The same work alone, and then several times beside the attacker and beside a child that takes the
//! processor time which the attacker took, and does not connect. The share is tokens per second of the first over those
//! of the second, of legs right behind each other, in turns; the median, with the least and the most. A run counts from
//! when its door is open to its exit. A fleet is sound if it ends by itself, a run as VALID and agents without an
//! error; *equal* says how many of all answers beside the attacker have the same tokens as alone. Memory (the most ever
//! resident), open files and processor time are those of the process with the pool. *slowest*: the longest that a
//! reader of the page or figures waited who asks twice a second.

mod attack;
#[path = "../../tests/common/mod.rs"]
#[expect(dead_code, reason = "tests need more of it")]
mod common;
mod fleet;
mod pages;
mod process;
mod rows;

use std::env;
use std::fs;
use std::path::PathBuf;

use fleet::{Company, Leg, Place};
use process::Peak;
use rows::Row;

fn main() {
    // Cargo says that it is a bench.
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("attack") => attack::attack(&arguments[1..]),
        Some("burn") => process::burn(arguments[1].parse().expect("a share")),
        _ => table(&arguments),
    }
}

fn table(arguments: &[String]) {
    let (mut repeats, mut are_fast, mut names) = (3, false, Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--repeats" => repeats = rest.next().and_then(|n| n.parse().ok()).expect("--repeats N"),
            "--fast" => are_fast = true,
            name => names.push(name),
        }
    }
    let beside = || Some(env::current_exe().ok()?.parent()?.parent()?.to_path_buf());
    let programs = env::var_os("SPECFLEET_BIN_DIR").map(PathBuf::from).or_else(beside).expect("a folder");
    let place = Place::new(programs, are_fast);
    println!("load: {}", fs::read_to_string("/proc/loadavg").expect("Linux").trim());
    println!(
        "| row | sound | equal | alone, attacked, burner: tokens/s | share kept, % | attacker, % of a core | pool: MiB | files | CPU s | others, % | besides |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for row in Row::all() {
        if names.is_empty() || names.iter().any(|name| row.name().starts_with(name)) {
            println!("{}", measured(&place, &row, repeats));
        }
    }
    println!("load: {}", fs::read_to_string("/proc/loadavg").expect("Linux").trim());
}

/// All legs of a row, as a line of the table.
fn measured(place: &Place, row: &Row, repeats: usize) -> String {
    let others = process::taken_by_others();
    let alone = place.leg(row, Company::Nobody);
    let (mut attacked, mut burnt) = (Vec::new(), Vec::new());
    let mut share = 0.0;
    for repeat in 0..repeats {
        // The second time the other way round: it is known by then what to burn.
        if repeat % 2 == 1 {
            burnt.push(place.leg(row, Company::Burner(share)));
        }
        let leg = place.leg(row, Company::Attacker);
        share = leg.done.as_ref().map_or(0.0, |done| done.share);
        attacked.push(leg);
        if repeat % 2 == 0 {
            burnt.push(place.leg(row, Company::Burner(share)));
        }
    }
    let sound = |legs: &[Leg]| format!("{}/{}", legs.iter().filter(|leg| leg.sound).count(), legs.len());
    let equal =
        |leg: &Leg| leg.answers.iter().filter(|(task, tokens)| alone.answers.get(*task) == Some(tokens)).count();
    let (all, same) = (alone.answers.len() * repeats, attacked.iter().map(equal).sum::<usize>());
    let rates = |legs: &[Leg]| median(legs.iter().map(Leg::rate).collect());
    let kept: Vec<f64> = attacked.iter().zip(&burnt).map(|(a, b)| 100.0 * a.rate() / b.rate()).collect();
    let (least, most) = (kept.iter().copied().fold(f64::MAX, f64::min), kept.iter().copied().fold(0.0, f64::max));
    let taken = median(attacked.iter().filter_map(|leg| leg.done.as_ref()).map(|done| 100.0 * done.share).collect());
    let peak = attacked.iter().fold(Peak::default(), |peak, leg| peak.max(leg.peak));
    format!(
        "| {} | {} | {same}/{all} | {:.0}, {:.0}, {:.0} | {:.0} [{least:.0}, {most:.0}] | {taken:.0} | {} → {} | {} → {} | {:.1} → {:.1} | {others:.0} | {} |",
        row.name(),
        sound(&attacked),
        alone.rate(),
        rates(&attacked),
        rates(&burnt),
        median(kept.clone()),
        alone.peak.mebibytes,
        peak.mebibytes,
        alone.peak.descriptors,
        peak.descriptors,
        alone.peak.processor_seconds,
        peak.processor_seconds,
        besides(row, &alone, &attacked, &burnt)
    )
}

/// What else there is to say.
fn besides(row: &Row, alone: &Leg, attacked: &[Leg], burnt: &[Leg]) -> String {
    let mut said = Vec::new();
    for (who, legs) in [("alone", std::slice::from_ref(alone)), ("attacked", attacked), ("burner", burnt)] {
        for leg in legs {
            if let Some((welcomed, slowest)) = leg.newcomers {
                said.push(format!(
                    "{who}: {welcomed} newcomers welcomed, the slowest done in {:.1} s",
                    slowest.as_secs_f64()
                ));
            }
            if let Some(pages) = leg.pages {
                let (failed, asked, slowest) = (pages.failed, pages.asked, pages.slowest.as_secs_f64());
                said.push(format!("{who}: {failed} of {asked} questions failed, slowest {slowest:.2} s"));
            }
            if let Some((uploads, exact)) = leg.figures.filter(|_| row.attack == "A4") {
                said.push(format!("{who}: uploads {uploads:.1} %, exact {exact:.1} %"));
            }
            if !leg.sound && !leg.answers.is_empty() {
                said.push(format!("{who}: {} answers", leg.answers.len()));
            }
        }
    }
    let done = attacked.last().and_then(|leg| leg.done.as_ref()).map_or("", |done| done.said.as_str());
    said.push(format!("attacker: {done}"));
    said.join("; ")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
