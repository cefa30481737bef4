//! What others ask of the device.

use actix::prelude::*;
use specfleet_engine::device::{Input, Start};
use specfleet_engine::record::GenerationRecord;
use specfleet_engine::wire::VerifierIdentity;
use tokio::sync::oneshot;

use super::Device;
use crate::error::{AgentError, LinkError};
use crate::message::{CutConnection, Generate, LastLinkError, Leave, PoolVerifier, Ready};
use crate::store::Store;

impl Handler<Ready> for Device {
    type Result = ResponseFuture<Result<(), AgentError>>;

    fn handle(&mut self, _: Ready, _: &mut Context<Self>) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        match (&self.fatal, self.ready) {
            (Some(fatal), _) => drop(answer.send(Err(fatal.clone()))),
            (None, true) => drop(answer.send(Ok(()))),
            (None, false) => self.wait_until_ready.push(answer),
        }
        Box::pin(async { answered.await.unwrap_or(Err(AgentError::Left)) })
    }
}

impl Handler<Generate> for Device {
    type Result = ResponseFuture<Result<GenerationRecord, AgentError>>;

    fn handle(&mut self, generate: Generate, ctx: &mut Context<Self>) -> Self::Result {
        match self.admit(&generate) {
            Err(error) => Box::pin(async { Err(error) }),
            Ok(start) => {
                let settings = self.machine.settings();
                let (seed, spec) = (settings.seed, settings.draft_spec());
                let sequence = self.drafter.sequence();
                self.store = Some(Store::new(generate.generation, seed, spec, &generate.prompt, sequence));
                self.failure = None;
                let (answer, answered) = oneshot::channel();
                self.caller = Some(answer);
                self.in_a_row = self.in_a_row.saturating_sub(1);
                let at = self.clock.start(start.scheduled, self.host());
                self.tell(at, Input::Start(start), ctx);
                Box::pin(async { answered.await.unwrap_or(Err(AgentError::Left)) })
            }
        }
    }
}

impl Device {
    /// Refuses what the machine cannot start.
    fn admit(&self, generate: &Generate) -> Result<Start, AgentError> {
        let Generate { generation, data_set, prompt, scheduled } = generate;
        let settings = self.machine.settings();
        let too_long = || AgentError::PromptTooLong { tokens: prompt.len(), context: settings.context };
        let prompt_tokens = u32::try_from(prompt.len()).map_err(|_| too_long())?;
        if let Some(fatal) = &self.fatal {
            Err(fatal.clone())
        } else if self.store.is_some() {
            Err(AgentError::Busy)
        } else if prompt.is_empty() {
            Err(AgentError::NoPrompt)
        } else if settings.limit(prompt_tokens) == 0 {
            Err(too_long())
        } else {
            let now = self.host();
            let scheduled = scheduled.unwrap_or(now).min(now);
            Ok(Start { generation: *generation, data_set: *data_set, prompt_tokens, scheduled })
        }
    }
}

impl Handler<CutConnection> for Device {
    type Result = ();

    fn handle(&mut self, _: CutConnection, ctx: &mut Context<Self>) {
        // Without a connection an attempt to make one may be under way, whose end the machine has yet to hear of.
        if self.link.is_some() {
            self.lost(LinkError::Cut, ctx);
        }
    }
}

impl Handler<LastLinkError> for Device {
    type Result = Option<LinkError>;

    fn handle(&mut self, _: LastLinkError, _: &mut Context<Self>) -> Option<LinkError> {
        self.last_link_error.clone()
    }
}

impl Handler<PoolVerifier> for Device {
    type Result = Option<VerifierIdentity>;

    fn handle(&mut self, _: PoolVerifier, _: &mut Context<Self>) -> Option<VerifierIdentity> {
        self.verifier.clone()
    }
}

impl Handler<Leave> for Device {
    type Result = ();

    fn handle(&mut self, _: Leave, ctx: &mut Context<Self>) {
        self.happened(Input::Leave, ctx);
    }
}
