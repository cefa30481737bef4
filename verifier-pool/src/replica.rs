//! The pool's side of one verifier: its address, the orders that gather while it computes, and its kills.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::prelude::Request;
use actix::{Actor, Addr, Arbiter};
use specfleet_model::Model;
use specfleet_timer::HostClock;
use tokio::sync::oneshot;

use crate::status::KvHeld;
use crate::verifier_actor::{Orders, VerifierActor, VerifierOrder};

/// What it takes to start a verifier.
#[derive(Clone)]
pub(crate) struct Blueprint {
    /// Replicas share its weights.
    pub(crate) model: Model,
    /// The most that the arena may hold.
    pub(crate) arena_bytes: usize,
    /// Threads of a pass.
    pub(crate) threads: usize,
    /// What its batches are timed by.
    pub(crate) clock: HostClock,
}

/// One replica of the verifier model, with its thread.
pub(crate) struct Replica {
    life: Life,
    orders: Vec<VerifierOrder>,
    /// Whether it has orders that it has not answered.
    busy: bool,
    /// Who waits for a kill to take effect, in order.
    kills: VecDeque<oneshot::Sender<()>>,
    /// As of its last answer.
    held: KvHeld,
    restarts: u32,
}

/// From a start to a failure.
struct Life {
    arbiter: Arbiter,
    verifier: Addr<VerifierActor>,
    kill: Arc<AtomicBool>,
}

impl Life {
    fn start(blueprint: &Blueprint) -> io::Result<Life> {
        let arbiter = Arbiter::try_new()?;
        let kill = Arc::new(AtomicBool::new(false));
        let (blueprint, switch) = (blueprint.clone(), kill.clone());
        let verifier =
            VerifierActor::start_in_arbiter(&arbiter.handle(), move |_| VerifierActor::new(blueprint, switch));
        Ok(Life { arbiter, verifier, kill })
    }
}

impl Replica {
    /// Starts a verifier on a thread of its own.
    pub(crate) fn start(blueprint: &Blueprint) -> io::Result<Replica> {
        let life = Life::start(blueprint)?;
        Ok(Replica {
            life,
            orders: Vec::new(),
            busy: false,
            kills: VecDeque::new(),
            held: KvHeld::default(),
            restarts: 0,
        })
    }

    /// Starts a fresh verifier after a failure: no orders, an empty cache. The error leaves everything as it was.
    pub(crate) fn restart(&mut self, blueprint: &Blueprint) -> io::Result<()> {
        let dead = std::mem::replace(&mut self.life, Life::start(blueprint)?);
        dead.arbiter.stop();
        self.orders.clear();
        self.busy = false;
        self.held = KvHeld::default();
        self.restarts += 1;
        if let Some(done) = self.kills.pop_front() {
            // Whoever asked for the kill may have gone.
            let _ = done.send(());
        }
        if !self.kills.is_empty() {
            self.strike();
        }
        Ok(())
    }

    /// Makes the verifier fail at its next step; `done` hears when its successor has started.
    pub(crate) fn kill(&mut self, done: oneshot::Sender<()>) {
        self.kills.push_back(done);
        self.strike();
    }

    fn strike(&mut self) {
        self.life.kill.store(true, Ordering::Release);
        self.orders.push(VerifierOrder::Step);
    }

    /// Adds an order behind those that wait.
    pub(crate) fn order(&mut self, order: VerifierOrder) {
        self.orders.push(order);
    }

    /// Sends what has gathered, unless an answer is outstanding: so the verifier's mailbox never holds more than one
    /// message, and the orders keep their order.
    pub(crate) fn send(&mut self) -> Option<Request<VerifierActor, Orders>> {
        if self.busy || self.orders.is_empty() {
            return None;
        }
        self.busy = true;
        Some(self.life.verifier.send(Orders(std::mem::take(&mut self.orders))))
    }

    /// Its orders are carried out.
    pub(crate) fn answered(&mut self, held: KvHeld) {
        self.busy = false;
        self.held = held;
    }

    /// What its cache held at its last answer.
    pub(crate) fn held(&self) -> KvHeld {
        self.held
    }

    /// How often it was started anew.
    pub(crate) fn restarts(&self) -> u32 {
        self.restarts
    }

    pub(crate) fn stop(&self) {
        self.life.arbiter.stop();
    }
}
