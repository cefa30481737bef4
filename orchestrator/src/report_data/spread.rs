//! How the devices of a fleet differ: figures by device, their extremes and percentiles by method and profile.

use std::collections::BTreeMap;

use specfleet_engine::method::Writer;
use specfleet_engine::record::{FinishReason, GenerationRecord};
use specfleet_engine::time::{Span, Time};

use super::DeviceSpread;
use crate::stored::StoredRun;

/// Sums per method, device and pass.
#[derive(Default)]
pub(super) struct Spread {
    devices: BTreeMap<(u16, u32), BTreeMap<u16, DeviceSums>>,
}

#[derive(Clone, Copy)]
struct DeviceSums {
    tokens: u64,
    gaps: u64,
    gap_time: Span,
    uploads: u64,
    nanojoules: u64,
    first: Time,
    last: Time,
}

impl Spread {
    pub(super) fn add(&mut self, run: &StoredRun, record: &GenerationRecord, uploads: u32, gap_time: Span) {
        if record.finish == FinishReason::Dropped || usize::from(record.id.method) >= run.meta().methods.len() {
            return;
        }
        let passes = self.devices.entry((record.id.method, record.device.0)).or_default();
        let sums = passes.entry(record.id.pass).or_insert(DeviceSums {
            tokens: 0,
            gaps: 0,
            gap_time: Span::ZERO,
            uploads: 0,
            nanojoules: 0,
            first: record.scheduled,
            last: record.ended,
        });
        let tokens = record.tokens.len() as u64;
        sums.tokens += tokens;
        sums.gaps += tokens.saturating_sub(1);
        sums.gap_time += gap_time;
        sums.uploads += u64::from(uploads);
        sums.nanojoules += record.energy.total();
        sums.first = sums.first.min(record.scheduled);
        sums.last = sums.last.max(record.ended);
    }

    pub(super) fn finish(self, run: &StoredRun) -> Vec<DeviceSpread> {
        const METRICS: [&str; 4] =
            ["inter_token_mean_seconds", "energy_per_token_joules", "upload_rate", "tokens_per_second"];
        let mut groups: BTreeMap<(u16, &str), [Vec<f64>; 4]> = BTreeMap::new();
        for ((method, device), passes) in &self.devices {
            let profile = run.profile_name(specfleet_engine::id::DeviceId(*device));
            let group = groups.entry((*method, profile)).or_default();
            let ratio = |a: f64, b: f64| (b > 0.0).then(|| a / b);
            let sum = |of: fn(&DeviceSums) -> u64| passes.values().map(of).sum::<u64>() as f64;
            let seconds = |of: fn(&DeviceSums) -> Span| passes.values().map(of).map(Span::seconds).sum::<f64>();
            let tokens = sum(|sums| sums.tokens);
            let drafts = run.meta().methods[usize::from(*method)].writer == Writer::Drafter;
            let figures = [
                ratio(seconds(|sums| sums.gap_time), sum(|sums| sums.gaps)),
                ratio(sum(|sums| sums.nanojoules) * 1e-9, tokens),
                ratio(sum(|sums| sums.uploads), tokens).filter(|_| drafts),
                ratio(tokens, seconds(|sums| sums.last.since(sums.first))),
            ];
            for (values, figure) in group.iter_mut().zip(figures) {
                values.extend(figure);
            }
        }
        let mut rows = Vec::new();
        for ((method, profile), figures) in groups {
            for (metric, mut values) in METRICS.into_iter().zip(figures) {
                values.sort_by(f64::total_cmp);
                let at = |percent: usize| values[(percent * values.len()).div_ceil(100).max(1) - 1];
                if values.is_empty() {
                    continue;
                }
                rows.push(DeviceSpread {
                    method: run.method_name(method).to_owned(),
                    profile: profile.to_owned(),
                    metric,
                    devices: values.len() as u64,
                    min: values[0],
                    p10: at(10),
                    p50: at(50),
                    p90: at(90),
                    max: values[values.len() - 1],
                });
            }
        }
        rows
    }
}
