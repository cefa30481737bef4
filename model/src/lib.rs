//! Llama-family forward over packed ragged batches on candle, KV arena, weights and tokenizer.
