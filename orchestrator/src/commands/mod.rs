//! One file per command that has one: its flags, and what it prints.

pub(crate) mod dashboard;
