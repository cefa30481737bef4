//! Whole-system, reference-model, golden and tidy tests (unpublished).
