//! Device agents: the drafter thread, the Device actor and its QUIC client.
