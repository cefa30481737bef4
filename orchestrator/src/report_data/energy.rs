//! The joules of a report, by method and part.

use specfleet_engine::method::{Gate, Writer};
use specfleet_engine::record::Provenance;
use specfleet_ledger::{EnergyOwner, EnergyPart};

use super::EnergyFigure;
use crate::error::Error;
use crate::stored::StoredRun;

/// Σ joules by method and part.
pub(super) fn energy(run: &StoredRun) -> Result<Vec<EnergyFigure>, Error> {
    #[derive(Clone, Default)]
    struct Account {
        tokens: u64,
        nanojoules: [u64; 4],
        provenance: [Vec<Provenance>; 4],
    }
    let methods = &run.meta().methods;
    let mut accounts = vec![Account::default(); methods.len()];
    let note = |known: &mut Vec<Provenance>, provenance: Provenance| {
        if !known.contains(&provenance) {
            known.push(provenance);
            known.sort();
        }
    };
    for record in &run.generations {
        let Some(account) = accounts.get_mut(usize::from(record.id.method)) else { continue };
        account.tokens += record.tokens.len() as u64;
        let parts = [
            (record.energy.device, record.device_provenance),
            (record.energy.radio, record.radio_provenance),
            (record.energy.cloud, record.cloud_provenance),
        ];
        for (index, (nanojoules, provenance)) in parts.into_iter().enumerate() {
            account.nanojoules[index] += nanojoules;
            if nanojoules > 0 {
                note(&mut account.provenance[index], provenance);
            }
        }
    }
    for row in run.reader.energy().flatten() {
        if let (EnergyPart::CloudIdle, EnergyOwner::Verifier { method, .. }) = (row.part, row.owner)
            && let Some(account) = accounts.get_mut(usize::from(method))
        {
            account.nanojoules[3] += row.nanojoules;
            note(&mut account.provenance[3], row.provenance);
        }
    }
    let parts = ["device", "radio", "cloud", "idle"];
    let figures = methods.iter().zip(accounts).flat_map(|(method, account)| {
        let asks = method.writer == Writer::Verifier || method.gate != Gate::Never;
        let Account { tokens, nanojoules, provenance } = account;
        let figures = parts.into_iter().zip(nanojoules).zip(provenance);
        figures
            // A method that never asks the pool has no radio and no cloud, which is not the same as using none of it.
            .filter(move |((part, nanojoules), _)| tokens > 0 && (*part == "device" || asks || *nanojoules > 0))
            .map(move |((part, nanojoules), provenance)| EnergyFigure {
                method: method.name.clone(),
                part,
                joules_per_token: nanojoules as f64 * 1e-9 / tokens as f64,
                joules: nanojoules as f64 * 1e-9,
                provenance,
            })
    });
    Ok(figures.collect())
}
