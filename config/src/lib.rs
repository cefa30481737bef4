//! Scenario files to validated settings, with the presets and profiles that ship.
