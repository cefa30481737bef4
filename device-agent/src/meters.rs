//! Hardware energy meters of a real device.
//!
//! Linux shows the energy counters of a processor (RAPL and the like) under `/sys/class/powercap`, one folder per zone:
//! `energy_uj` counts microjoules and starts over at `max_energy_range_uj`. A package's zone covers its subzones (cores,
//! graphics, sometimes memory), so only the topmost are added up. They measure the whole processor, not this process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Where Linux shows them.
pub const POWERCAP: &str = "/sys/class/powercap";

/// The processor's energy since the meter was opened.
#[derive(Debug)]
pub struct EnergyMeter {
    zones: Vec<Zone>,
}

#[derive(Debug)]
struct Zone {
    counter: PathBuf,
    /// Where the counter starts over, in microjoules.
    range: u64,
    last: u64,
    /// Microjoules since the meter was opened.
    total: u64,
}

/// Why there is no measurement.
#[derive(Debug, Error)]
pub enum MeterError {
    /// No counters on this machine.
    #[error("no energy counters under {}", .0.display())]
    None(PathBuf),
    /// A counter cannot be read; for most of them one has to be root.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl EnergyMeter {
    /// Opens the counters under `root`, [`POWERCAP`] on a real machine.
    pub fn open(root: &Path) -> Result<EnergyMeter, MeterError> {
        let none = || MeterError::None(root.to_owned());
        let mut names: Vec<String> = fs::read_dir(root)
            .map_err(|_| none())?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.matches(':').count() == 1)
            .collect();
        names.sort();
        let mut zones = Vec::new();
        // Some machines show the same package through two interfaces (`intel-rapl`, `intel-rapl-mmio`): the first counts.
        let interface = |name: &str| name.split(':').next().unwrap_or_default().to_owned();
        let first = names.iter().map(|name| interface(name)).min().unwrap_or_default();
        for name in names.iter().filter(|name| interface(name) == first) {
            let folder = root.join(name);
            // `psys` is the whole platform and holds the packages.
            let label = fs::read_to_string(folder.join("name")).unwrap_or_default();
            if label.trim() != "psys" {
                zones.push(Zone::open(&folder)?);
            }
        }
        if zones.is_empty() { Err(none()) } else { Ok(EnergyMeter { zones }) }
    }

    /// Nanojoules since the meter was opened. Read it more often than a counter can start over: once a minute is enough
    /// for any processor.
    pub fn nanojoules(&mut self) -> Result<u64, MeterError> {
        let mut total = 0_u64;
        for zone in &mut self.zones {
            total = total.saturating_add(zone.microjoules()?);
        }
        Ok(total.saturating_mul(1000))
    }
}

impl Zone {
    fn open(folder: &Path) -> Result<Zone, MeterError> {
        let counter = folder.join("energy_uj");
        let last = read(&counter)?;
        let range = read(&folder.join("max_energy_range_uj"))?;
        Ok(Zone { counter, range, last, total: 0 })
    }

    fn microjoules(&mut self) -> Result<u64, MeterError> {
        let now = read(&self.counter)?;
        // The counter runs through 0 ..= range.
        let wrap = if now < self.last { self.range.saturating_add(1) } else { 0 };
        self.total = self.total.saturating_add(now.saturating_add(wrap).saturating_sub(self.last));
        self.last = now;
        Ok(self.total)
    }
}

fn read(path: &Path) -> Result<u64, MeterError> {
    let failed = |source| MeterError::Read { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(failed)?;
    text.trim().parse().map_err(|e| failed(io::Error::new(io::ErrorKind::InvalidData, e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(tempfile::TempDir);

    impl Fake {
        fn zone(&self, name: &str, label: &str, microjoules: u64) {
            let folder = self.0.path().join(name);
            fs::create_dir_all(&folder).expect("a temporary folder");
            let write = |file: &str, text: String| fs::write(folder.join(file), text).expect("a temporary file");
            write("name", format!("{label}\n"));
            write("energy_uj", format!("{microjoules}\n"));
            write("max_energy_range_uj", "999\n".to_owned());
        }
    }

    #[test]
    fn counters_start_over_and_only_packages_count() {
        let fake = Fake(tempfile::tempdir().expect("a temporary folder"));
        let zones = |first, second| {
            fake.zone("intel-rapl:0", "package-0", first);
            fake.zone("intel-rapl:1", "package-1", second);
            fake.zone("intel-rapl:0:0", "core", first);
            fake.zone("intel-rapl:2", "psys", first + second);
            fake.zone("intel-rapl-mmio:0", "package-0", first);
        };
        zones(900, 10);
        let mut meter = EnergyMeter::open(fake.0.path()).expect("two packages");
        assert_eq!(meter.nanojoules().expect("readable"), 0);
        zones(950, 20);
        assert_eq!(meter.nanojoules().expect("readable"), 60_000);
        zones(49, 30);
        assert_eq!(meter.nanojoules().expect("readable"), 60_000 + 99_000 + 10_000);
    }

    #[test]
    fn a_machine_without_counters_says_so() {
        let empty = tempfile::tempdir().expect("a temporary folder");
        assert!(matches!(EnergyMeter::open(empty.path()), Err(MeterError::None(_))));
        assert!(matches!(EnergyMeter::open(&empty.path().join("absent")), Err(MeterError::None(_))));
        fs::create_dir_all(empty.path().join("intel-rapl:0")).expect("a temporary folder");
        let error = EnergyMeter::open(empty.path()).expect_err("no counter in it");
        assert!(error.to_string().contains("energy_uj"), "{error}");
    }
}
