//! Verifier pool: QUIC front door, the Pool actor and one Verifier actor per model replica.
