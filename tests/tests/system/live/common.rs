//! A live pool and what devices need to reach it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use device_agent::{Connector, ConnectorOptions, DeviceEvent, Drafter, HostClock, Timer, Trust};
use specfleet::pair::Pair;
use specfleet::progress::{Progress, Ui};
use specfleet::simulate::SimulationInput;
use specfleet_config::{Scenario, Settings};
use specfleet_engine::wire::FrameLimits;
use specfleet_tests::network::Network;
use tokio::sync::mpsc;
use verifier_pool::{PoolEvent, PoolHandle, PoolOptions};

/// What carries the datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Memory,
    Udp,
}

/// Everything that a fleet needs, running.
pub(crate) struct Live {
    pub(crate) pool: PoolHandle,
    pub(crate) connector: Connector,
    pub(crate) drafter: Drafter,
    pub(crate) timer: Timer,
    pub(crate) clock: HostClock,
    /// Where devices report.
    pub(crate) events: mpsc::Sender<DeviceEvent>,
    devices: Collected<DeviceEvent>,
    batches: Collected<PoolEvent>,
}

/// Everything that comes through a channel, until its senders are gone.
struct Collected<T> {
    kept: Arc<Mutex<Vec<T>>>,
    ended: tokio::task::JoinHandle<()>,
}

/// Runs a test on an actix system of its own.
pub(crate) fn system<F: Future<Output = ()> + 'static>(test: F) {
    actix::System::new().block_on(async {
        tokio::time::timeout(Duration::from_secs(280), test).await.expect("a test that hangs has failed");
    });
}

/// The shipped scenario with these changes.
pub(crate) fn settings(changes: &[&str]) -> (Settings, String) {
    let mut scenario = Scenario::shipped_default().expect("ships");
    for change in changes {
        scenario.set(change).expect("valid");
    }
    (scenario.settings().expect("valid"), scenario.to_toml())
}

/// The pair, the prompts and the methods of a scenario.
pub(crate) fn simulation_input(settings: &Settings, folder: &std::path::Path) -> SimulationInput {
    SimulationInput::open(&mut settings.clone(), None, folder, &Progress::new(Ui::None)).expect("everything ships")
}

impl Live {
    /// A pool as the scenario says, changed by `change`, and the way to it.
    pub(crate) async fn start(
        carrier: Carrier,
        settings: &Settings,
        pair: &Pair,
        change: impl FnOnce(&mut PoolOptions),
    ) -> Live {
        let clock = HostClock::start().expect("threads can be started");
        let (events, records) = mpsc::channel(1024);
        let (model, digests) = (pair.verifier.clone(), pair.verifier_files.clone());
        let mut options =
            PoolOptions::from_settings(settings, (model, digests), pair.tokenizer.digest(), events, clock.clone());
        change(&mut options);
        let network = Network::default();
        let pool = match carrier {
            Carrier::Udp => verifier_pool::start(options).await,
            Carrier::Memory => verifier_pool::start_over(network.bind(([10, 0, 0, 1], 1).into()), options).await,
        };
        let pool = pool.expect("the pool starts");
        let shape = pair.verifier.shape();
        let options = ConnectorOptions {
            server: pool.local_addr(),
            server_name: "localhost".to_owned(),
            trust: Trust::Pinned(pool.certificate_der().to_vec().into()),
            identity: None,
            endpoints: 1,
            idle_timeout: Duration::from_secs(60),
            limits: FrameLimits::for_pair(shape.vocab, shape.context),
        };
        let connector = match carrier {
            Carrier::Udp => Connector::new(options),
            Carrier::Memory => Connector::over(vec![network.bind(([10, 0, 0, 2], 1).into())], options),
        };
        let (events, reports) = mpsc::channel(1024);
        Live {
            pool,
            connector: connector.expect("a way to the pool"),
            drafter: Drafter::start(pair.drafter.clone(), 64 << 20, 1).expect("threads can be started"),
            timer: Timer::start().expect("threads can be started"),
            clock,
            events,
            devices: Collected::new(reports),
            batches: Collected::new(records),
        }
    }

    /// Ends it, and hands over everything that was recorded. The devices have left.
    pub(crate) async fn stop(self) -> (Vec<DeviceEvent>, Vec<PoolEvent>) {
        self.connector.drain().await;
        self.pool.shutdown(Duration::from_secs(5)).await;
        self.drafter.stop().await;
        drop(self.events);
        (self.devices.all().await, self.batches.all().await)
    }
}

impl<T: 'static> Collected<T> {
    fn new(mut receiver: mpsc::Receiver<T>) -> Collected<T> {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keep = kept.clone();
        let ended = actix::spawn(async move {
            while let Some(item) = receiver.recv().await {
                keep.lock().unwrap_or_else(PoisonError::into_inner).push(item);
            }
        });
        Collected { kept, ended }
    }

    async fn all(self) -> Vec<T> {
        self.ended.await.expect("no panic");
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
