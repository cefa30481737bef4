//! Orchestrator for fleets of hybrid-decoding device agents.
