//! Looks at the ledger's plain files while pages are open, and tells them what is new.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde::Serialize;
use specfleet_ledger::{ListedState, Live};

use super::events::{Hub, frame};
use super::runs::Runs;

/// How often a running run is looked at; its writer says something new as often.
const TICK: Duration = Duration::from_millis(500);

/// How often pages are told that the server is still there.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);

/// What is running, as the event `live`.
#[derive(Serialize)]
struct WatchedRun<'a> {
    runs: Vec<RunningRun<'a>>,
}

#[derive(Serialize)]
struct RunningRun<'a> {
    run: &'a str,
    /// `None` before its first flush.
    live: Option<Live>,
}

/// That the list has changed, as the event `runs`.
#[derive(Serialize)]
struct Changed {
    revision: u64,
    total: usize,
}

/// Works until the hub is closed. Rests while nobody listens.
pub(super) fn watch(hub: &Hub, runs: &Runs, wake: &Receiver<()>) {
    let mut told = Instant::now();
    loop {
        if let Err(RecvTimeoutError::Disconnected) = wake.recv_timeout(TICK) {
            return;
        }
        if hub.is_closed() {
            return;
        }
        if !hub.is_watched() {
            continue;
        }
        look(hub, runs);
        if told.elapsed() >= HEARTBEAT_EVERY {
            told = Instant::now();
            hub.heartbeat();
        }
    }
}

/// Publishes what has changed. A ledger that cannot be read is no news here: the list says why.
fn look(hub: &Hub, runs: &Runs) {
    let Ok((listed, revision)) = runs.listing() else { return };
    let running = listed.iter().filter(|run| run.state == ListedState::Running);
    // A file that is being replaced right now is there again at the next look.
    let running = running.map(|run| RunningRun { run: &run.run, live: Live::read(&run.dir).ok().flatten() });
    publish(hub, "live", &WatchedRun { runs: running.collect() });
    publish(hub, "runs", &Changed { revision, total: listed.len() });
}

fn publish(hub: &Hub, kind: &'static str, content: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(content) {
        hub.publish(kind, frame(kind, &text));
    }
}
