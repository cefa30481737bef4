//! What the device hands over: its events, and the answers to those who asked for a generation.

use actix::prelude::*;
use specfleet_engine::record::GenerationRecord;
use tokio::sync::{mpsc, oneshot};

use super::Device;
use crate::error::AgentError;
use crate::message::DeviceEvent;

/// What leaves the actor through [`Device::outbox`].
pub(super) enum Report {
    Event(DeviceEvent),
    Answer(oneshot::Sender<Result<GenerationRecord, AgentError>>, Result<GenerationRecord, AgentError>),
}

impl Device {
    /// Hands reports over, in order. When the queue is full, the whole device waits: nothing is dropped or parked.
    pub(super) fn hand_over(&mut self, ctx: &mut Context<Self>) {
        while !self.full
            && let Some(report) = self.outbox.pop_front()
        {
            match report {
                Report::Answer(caller, answer) => {
                    let _ = caller.send(answer);
                }
                Report::Event(event) => {
                    // A receiver that has gone wants no reports.
                    if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
                        self.full = true;
                        let events = self.events.clone();
                        let room = async move {
                            let _ = events.send(event).await;
                        };
                        ctx.wait(room.into_actor(self).map(|(), device, ctx| {
                            device.full = false;
                            device.hand_over(ctx);
                        }));
                    }
                }
            }
        }
        if self.gone && !self.full {
            self.give_up(AgentError::Left);
            // Dropping the link ends the connection once everything queued has gone out.
            self.link = None;
            ctx.stop();
        }
    }
}
