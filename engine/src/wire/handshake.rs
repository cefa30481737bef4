//! Who may talk to whom.

use super::frame::{AdmissionToken, Goodbye, Hello, Welcome};
use super::{PROTOCOL_VERSION, frame::ClientFrame};

/// Whether the first frame of a connection lets a device in: `ours` is what the pool would say in its place.
pub fn greet(ours: &Hello, first: &ClientFrame) -> Result<(), Goodbye> {
    let ClientFrame::Hello(theirs) = first else { return Err(Goodbye::OutOfOrder) };
    if theirs.protocol != ours.protocol {
        return Err(Goodbye::Protocol { ours: ours.protocol, theirs: theirs.protocol });
    }
    // Nothing is given away by how long it takes: the token is random and belongs to one run.
    if ours.admission != AdmissionToken::NONE && theirs.admission != ours.admission {
        return Err(Goodbye::Stranger);
    }
    if theirs.tokenizer != ours.tokenizer || theirs.vocab != ours.vocab {
        return Err(Goodbye::Tokenizer);
    }
    Ok(())
}

/// Whether a device can work with the pool that answered so.
pub fn welcome_fits(welcome: &Welcome) -> Result<(), Goodbye> {
    if welcome.protocol == PROTOCOL_VERSION {
        Ok(())
    } else {
        Err(Goodbye::Protocol { ours: welcome.protocol, theirs: PROTOCOL_VERSION })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_typed() {
        let admission = AdmissionToken([3; 16]);
        let ours = Hello { protocol: PROTOCOL_VERSION, tokenizer: [7; 32], vocab: 100, admission };
        let say = |hello: Hello| greet(&ours, &ClientFrame::Hello(hello));
        assert!(say(ours.clone()).is_ok());
        assert_eq!(
            say(Hello { protocol: 0, ..ours.clone() }),
            Err(Goodbye::Protocol { ours: PROTOCOL_VERSION, theirs: 0 })
        );
        assert_eq!(say(Hello { tokenizer: [8; 32], ..ours.clone() }), Err(Goodbye::Tokenizer));
        assert_eq!(say(Hello { vocab: 99, ..ours.clone() }), Err(Goodbye::Tokenizer));
        for other in [AdmissionToken::NONE, AdmissionToken([4; 16])] {
            assert_eq!(say(Hello { admission: other, ..ours.clone() }), Err(Goodbye::Stranger));
        }
        let open = Hello { admission: AdmissionToken::NONE, ..ours.clone() };
        assert!(greet(&open, &ClientFrame::Hello(ours.clone())).is_ok(), "a pool without a run takes everybody");
        assert_eq!(greet(&ours, &ClientFrame::Close { session: 1, at: None }), Err(Goodbye::OutOfOrder));
    }
}
