//! Where the records of a simulation go.

use specfleet_engine::id::{DeviceId, GenerationId};
use specfleet_engine::record::{BatchRecord, GenerationRecord, RoundRecord, VerifierRecord};
use specfleet_engine::time::{Span, Time};

/// Takes in what the devices of one shard record. Calls come in an order that does not depend on the number of threads.
pub trait DeviceSink: Send {
    /// A generation starts. `target`: the latency per token that its user wants, zero for none.
    fn started(&mut self, device: DeviceId, generation: GenerationId, data_set: u16, scheduled: Time, target: Span);

    /// A token is committed. A device's rounds come in order, and before its generation's end.
    fn round(&mut self, device: DeviceId, generation: GenerationId, record: &RoundRecord);

    /// A generation is over.
    fn finished(&mut self, record: GenerationRecord);
}

/// Takes in what the pool records.
pub trait PoolSink: Send {
    /// A batch is over.
    fn batch(&mut self, record: &BatchRecord);

    /// A phase is over for a verifier.
    fn verifier(&mut self, record: &VerifierRecord);
}
