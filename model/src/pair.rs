//! Whether a drafter and a verifier can work together.

use crate::{Model, ModelError, Tokenizer};

/// Checks that a drafter and a verifier speak of the same tokens: equal vocabularies, tokenizers with the same digest
/// whose ids both models know, and the same tokens that end a text. The error says what differs.
pub fn check_pair(drafter: (&Model, &Tokenizer), verifier: (&Model, &Tokenizer)) -> Result<(), ModelError> {
    let refuse = |reason: String| Err(ModelError::Pair(reason));
    let (draft, verify) = (drafter.0.shape(), verifier.0.shape());
    if draft.vocab != verify.vocab {
        return refuse(format!(
            "the drafter's vocabulary has {} entries, the verifier's {}",
            draft.vocab, verify.vocab
        ));
    }
    let sizes = (drafter.1.vocab_size(), verifier.1.vocab_size());
    if sizes.0 != sizes.1 {
        return refuse(format!("the drafter's tokenizer has {} tokens, the verifier's {}", sizes.0, sizes.1));
    }
    if drafter.1.digest() != verifier.1.digest() {
        return refuse(format!(
            "their tokenizers differ (digests {} and {}) though both have {} tokens",
            short(drafter.1),
            short(verifier.1),
            sizes.0
        ));
    }
    check_tokenizer(drafter.0, drafter.1)?;
    if draft.eos != verify.eos {
        return refuse(format!("the drafter ends texts at tokens {:?}, the verifier at {:?}", draft.eos, verify.eos));
    }
    Ok(())
}

/// Checks that a model has an entry for every token that its tokenizer can make of a text.
pub fn check_tokenizer(model: &Model, tokenizer: &Tokenizer) -> Result<(), ModelError> {
    let (vocab, tokens, last) = (model.shape().vocab, tokenizer.vocab_size(), tokenizer.last_id());
    if tokens > vocab {
        return Err(ModelError::Pair(format!("the tokenizer has {tokens} tokens, the models' vocabularies {vocab}")));
    }
    if last as usize >= vocab {
        return Err(ModelError::Pair(format!(
            "the tokenizer has a token {last}, outside the models' vocabularies 0..{vocab}"
        )));
    }
    Ok(())
}

fn short(tokenizer: &Tokenizer) -> String {
    specfleet_files::hex(&tokenizer.digest()[..4])
}
