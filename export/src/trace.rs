//! What happened when, as a Chrome trace: chrome://tracing and Perfetto open it.
//!
//! Every device is a process with a thread for drafting and one for its uploads; the pool is a process with a thread per
//! verifier. Times are microseconds with the nanoseconds behind the point.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::record::RoundRecord;
use specfleet_ledger::{LedgerError, RoundColumn, RoundPiece, RunReader};

use crate::error::ExportError;
use crate::stop::Stop;
use crate::text::json_text;
use crate::visit::NamedFields;

/// The pool's process; device n is process n + 2.
const POOL: u64 = 1;

const DRAFTING: u64 = 1;
const UPLOADS: u64 = 2;

/// Writes the trace; the number of events.
pub(crate) fn write(
    reader: &RunReader,
    file: File,
    path: &Path,
    stop: Stop<'_>,
    tell: &mut dyn FnMut(LedgerError),
) -> Result<u64, ExportError> {
    let methods = reader.meta().methods.iter().map(|method| method.name.clone()).collect();
    let to = BufWriter::with_capacity(1 << 20, file);
    let mut trace = ChromeTrace { to, events: 0, methods, named: BTreeSet::new() };
    trace.all(reader, stop, tell).map_err(|source| ExportError::io(path, source))?;
    stop.check()?;
    let events = trace.events;
    let file = trace.to.into_inner().map_err(|error| ExportError::io(path, error.into_error()))?;
    file.sync_all().map_err(|source| ExportError::io(path, source))?;
    Ok(events)
}

struct ChromeTrace {
    to: BufWriter<File>,
    events: u64,
    methods: Vec<String>,
    /// Processes and threads that have their names.
    named: BTreeSet<(u64, u64)>,
}

impl ChromeTrace {
    fn all(&mut self, reader: &RunReader, stop: Stop<'_>, tell: &mut dyn FnMut(LedgerError)) -> std::io::Result<()> {
        self.to.write_all(b"{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
        for batch in reader.batches() {
            if stop.is_asked() {
                return Ok(());
            }
            match batch {
                Ok(batch) => {
                    let thread = u64::from(batch.verifier.0) + 1;
                    self.track(POOL, "pool", thread, &format!("verifier {}", batch.verifier.0))?;
                    let method = self.method(batch.method);
                    let args = format!(
                        "\"method\":{method},\"batch\":{},\"sequences\":{},\"work\":{},\"drafts\":{},\"nanojoules\":{},\
                         \"completed\":{}",
                        batch.batch, batch.sequences, batch.work, batch.drafts, batch.nanojoules, batch.completed
                    );
                    self.event("batch", POOL, thread, batch.started.0, batch.compute.0, &args)?;
                }
                Err(error) => tell(error),
            }
        }
        // When each device's generation committed last; a device has one at a time.
        let mut last: BTreeMap<DeviceId, (GenerationId, u64)> = BTreeMap::new();
        for chunk in reader.scan_rounds(RoundColumn::ALL) {
            if stop.is_asked() {
                return Ok(());
            }
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    tell(error);
                    continue;
                }
            };
            for piece in &chunk.pieces {
                for index in piece.range.clone() {
                    let round = chunk.rows.record(index);
                    let before = last.get(&piece.device).filter(|(id, _)| *id == piece.id).map(|(_, time)| *time);
                    self.round(piece, &round, before)?;
                    last.insert(piece.device, (piece.id, round.committed_at.0));
                }
            }
        }
        self.to.write_all(b"\n]}\n")
    }

    fn round(&mut self, piece: &RoundPiece, round: &RoundRecord, before: Option<u64>) -> std::io::Result<()> {
        let process = u64::from(piece.device.0) + 2;
        let name = format!("device {}", piece.device.0);
        let args = format!(
            "\"method\":{},\"prompt\":{},\"repetition\":{},\"pass\":{},\"position\":{},\"source\":\"{}\",\"reason\":\"{}\"",
            self.method(piece.id.method),
            piece.id.prompt,
            piece.id.repetition,
            piece.id.pass,
            round.position,
            word(round.source),
            word(round.reason),
        );
        let cost = round.upload_cost();
        let phases = [
            ("uplink", cost.uplink.0),
            ("queue", cost.verify.queue_wait.0),
            ("batch", cost.verify.batch_wait.0),
            ("compute", cost.verify.compute.0),
            ("downlink", cost.downlink.0),
        ];
        let length = phases.iter().fold(0u64, |sum, (_, length)| sum.saturating_add(*length));
        let sent = round.committed_at.0.saturating_sub(length);
        if let Some(before) = before
            && before < sent
        {
            self.track(process, &name, DRAFTING, "drafting")?;
            self.event("draft", process, DRAFTING, before, sent - before, &args)?;
        }
        if length > 0 {
            self.track(process, &name, UPLOADS, "uploads")?;
            let args = format!(
                "{args},\"uplink_bytes\":{},\"attempts\":{},\"work\":{}",
                cost.uplink_bytes, cost.attempts, cost.verify.fed_tokens
            );
            let mut start = sent;
            for (name, length) in phases {
                if length > 0 {
                    self.event(name, process, UPLOADS, start, length, &args)?;
                }
                start = start.saturating_add(length);
            }
        }
        Ok(())
    }

    /// Names a process and a thread when they are first seen.
    fn track(&mut self, process: u64, name: &str, thread: u64, thread_name: &str) -> std::io::Result<()> {
        if !self.named.insert((process, thread)) {
            return Ok(());
        }
        for (kind, name) in [("process_name", name), ("thread_name", thread_name)] {
            let line = format!(
                "{{\"name\":\"{kind}\",\"ph\":\"M\",\"pid\":{process},\"tid\":{thread},\"args\":{{\"name\":\"{name}\"}}}}"
            );
            self.put(&line)?;
        }
        Ok(())
    }

    fn event(
        &mut self,
        name: &str,
        process: u64,
        thread: u64,
        start: u64,
        length: u64,
        args: &str,
    ) -> std::io::Result<()> {
        let line = format!(
            "{{\"name\":\"{name}\",\"ph\":\"X\",\"pid\":{process},\"tid\":{thread},\"ts\":{}.{:03},\"dur\":{}.{:03},\
             \"args\":{{{args}}}}}",
            start / 1000,
            start % 1000,
            length / 1000,
            length % 1000,
        );
        self.put(&line)
    }

    fn put(&mut self, line: &str) -> std::io::Result<()> {
        self.to.write_all(if self.events == 0 { b"\n" } else { b",\n" })?;
        self.events += 1;
        self.to.write_all(line.as_bytes())
    }

    /// The method's name as JSON.
    fn method(&self, index: u16) -> String {
        let Some(name) = self.methods.get(usize::from(index)) else { return "null".to_owned() };
        let mut text = String::new();
        let _ = json_text(name, &mut text);
        text
    }
}

fn word<N: NamedFields>(value: N) -> &'static str {
    N::WORDS[value.code() as usize]
}
