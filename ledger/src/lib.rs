//! Run store: one sled database per run beside a plain meta.json.
