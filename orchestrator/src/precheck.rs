//! What can be known to fail before anything runs: a refusal at once is better than one after the run.

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::path::Path;

use specfleet_config::Settings;
use specfleet_engine::device::energy::DeviceCost;
use verifier_pool::{PoolError, TlsOptions};

use crate::error::Error;

/// Most devices that one process runs live, each with a connection of its own.
pub const MOST_LIVE_DEVICES: u32 = 10_000;

/// Most verifiers that one process runs live, each with threads and a KV arena of its own.
pub const MOST_LIVE_VERIFIERS: u16 = 64;

/// Refuses a fleet, or a pool, that is too large for one process.
pub fn fleet(settings: &Settings) -> Result<(), Error> {
    // Only devices with something to do are started.
    let prompts = settings.workload.iter().fold(0u32, |sum, part| sum.saturating_add(part.prompts));
    let devices = settings.run.devices.min(prompts);
    if devices > MOST_LIVE_DEVICES {
        return Err(Error::TooManyDevices { devices, most: MOST_LIVE_DEVICES });
    }
    // A pool that scales may come to its most.
    let (key, verifiers) = match settings.pool.autoscale {
        Some(scale) if scale.max > settings.run.verifiers => ("pool.autoscale.max", scale.max),
        _ => ("run.verifiers", settings.run.verifiers),
    };
    if verifiers > MOST_LIVE_VERIFIERS {
        return Err(Error::TooManyVerifiers { key, verifiers, most: MOST_LIVE_VERIFIERS });
    }
    Ok(())
}

/// Refuses what happens in real time only: a simulation has no time for it.
pub fn virtual_time(settings: &Settings) -> Result<(), Error> {
    for part in &settings.device.parts {
        let real = |what, name: &str, instead| Error::RealTime { what, name: name.to_owned(), instead };
        if !part.link.emulated {
            return Err(real("link", &part.link.name, "an emulated link, such as fair"));
        }
        if matches!(part.profile.cost, DeviceCost::Host { .. }) {
            return Err(real("device profile", &part.profile.name, "a profile that declares its times, such as phone"));
        }
    }
    Ok(())
}

/// Refuses a port that is taken, certificates that cannot be used and folders that cannot be written.
pub fn places(settings: &Settings, ledger: &Path, out: Option<&Path>) -> Result<(), Error> {
    let tls = settings.pool.tls.as_ref();
    if tls.is_some_and(|files| files.client_authority.is_some()) {
        return Err(Error::ClientAuthority);
    }
    port_is_free(settings)?;
    TlsOptions::from_settings(&settings.pool).check()?;
    folders(ledger, out)
}

/// Refuses folders that cannot be written.
pub fn folders(ledger: &Path, out: Option<&Path>) -> Result<(), Error> {
    writable("--ledger", ledger)?;
    out.map_or(Ok(()), |out| writable("--out", out))
}

/// Port 0 is always free; another one may still be taken before the pool comes to it, which then says the same.
fn port_is_free(settings: &Settings) -> Result<(), Error> {
    let address = settings.pool.listen.resolve().map_err(PoolError::from)?;
    let taken = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => PoolError::PortInUse { address },
        _ => PoolError::Listen { address: address.into(), source },
    };
    UdpSocket::bind(address).map(drop).map_err(taken).map_err(Error::from)
}

/// Makes the folder and a file in it, and takes the file away again.
fn writable(flag: &'static str, folder: &Path) -> Result<(), Error> {
    let probe = folder.join(format!(".specfleet-{}", std::process::id()));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&probe, b""))
        .and_then(|()| fs::remove_file(&probe))
        .map_err(|source| Error::Folder { flag, path: folder.to_path_buf(), source })
}
