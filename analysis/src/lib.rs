//! Pure statistics over records: scores, distributions, bootstrap, summaries.
