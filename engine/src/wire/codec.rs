//! Frames to bytes and back.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Bytes of the length in front of each frame.
const HEADER: usize = 4;

/// Bounds on what a peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Longest frame, the length in front not counted.
    pub frame_bytes: usize,
}

impl FrameLimits {
    /// Room for the largest sensible frame of a model pair: a whole context of tokens and a block of full
    /// distributions, with something over for the other fields.
    pub fn for_pair(vocab: usize, context: usize) -> FrameLimits {
        let token = 5; // Longest varint of a `u32`.
        FrameLimits { frame_bytes: context * token + crate::method::MAX_BLOCK * vocab * (4 + token) + 1024 }
    }
}

/// Bytes that are no frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// Longer than allowed; nothing of it was kept.
    #[error("a frame of {bytes} bytes is over the limit of {limit}")]
    TooLong {
        /// What its header says.
        bytes: usize,
        limit: usize,
    },
    /// Not postcard, or not this type, or bytes left over.
    #[error("a frame of {bytes} bytes cannot be read")]
    Malformed { bytes: usize },
    /// The stream ended within a frame.
    #[error("the stream ended after {got} bytes of a frame")]
    Truncated {
        /// What had come of it, header included.
        got: usize,
    },
}

/// Appends one frame to `out` and returns its bytes on the wire. The error is a frame over the limit, of which nothing
/// is kept.
pub fn encode<F: Serialize>(frame: &F, limits: FrameLimits, out: &mut Vec<u8>) -> Result<usize, WireError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    let mut bytes = postcard::to_extend(frame, std::mem::take(out)).map_err(|_| WireError::Malformed { bytes: 0 })?;
    let length = bytes.len() - start - HEADER;
    if length > limits.frame_bytes || u32::try_from(length).is_err() {
        bytes.truncate(start);
        *out = bytes;
        return Err(WireError::TooLong { bytes: length, limit: limits.frame_bytes });
    }
    // The check above holds the length within `u32`.
    bytes[start..start + HEADER].copy_from_slice(&(length as u32).to_le_bytes());
    *out = bytes;
    Ok(length + HEADER)
}

/// Puts frames together from whatever pieces the transport delivers. Holds at most one frame and one piece.
#[derive(Debug)]
pub struct FrameDecoder<F> {
    limits: FrameLimits,
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that have been read.
    read: usize,
    frame: PhantomData<fn() -> F>,
}

impl<F: DeserializeOwned> FrameDecoder<F> {
    /// An empty decoder.
    pub fn new(limits: FrameLimits) -> Self {
        FrameDecoder { limits, buffer: Vec::new(), read: 0, frame: PhantomData }
    }

    /// Takes in the next piece of the stream.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole frame and its bytes on the wire. After an error the stream cannot be read any further.
    pub fn next_frame(&mut self) -> Result<Option<(F, usize)>, WireError> {
        let rest = &self.buffer[self.read..];
        let Some((header, rest)) = rest.split_first_chunk::<HEADER>() else { return Ok(None) };
        let bytes = u32::from_le_bytes(*header) as usize;
        if bytes > self.limits.frame_bytes {
            return Err(WireError::TooLong { bytes, limit: self.limits.frame_bytes });
        }
        let Some(body) = rest.get(..bytes) else { return Ok(None) };
        let (frame, left) = postcard::take_from_bytes(body).map_err(|_| WireError::Malformed { bytes })?;
        if !left.is_empty() {
            return Err(WireError::Malformed { bytes });
        }
        self.read += HEADER + bytes;
        Ok(Some((frame, HEADER + bytes)))
    }

    /// Whether a part of a frame is here that no whole one has been made of yet.
    pub fn is_within_frame(&self) -> bool {
        self.buffer.len() > self.read
    }

    /// Call when the stream has ended: an error if that was in the middle of a frame.
    pub fn finish(&self) -> Result<(), WireError> {
        match self.buffer.len() - self.read {
            0 => Ok(()),
            got => Err(WireError::Truncated { got }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::UploadId;
    use crate::wire::frame::{ClientFrame, ServerFrame};
    use proptest::prelude::*;

    const LIMITS: FrameLimits = FrameLimits { frame_bytes: 4096 };

    #[test]
    fn a_frame_comes_back_from_single_bytes() {
        let frame = ClientFrame::Cancel { session: 7, upload: UploadId(300), at: None };
        let mut bytes = Vec::new();
        let length = encode(&frame, LIMITS, &mut bytes).expect("short");
        assert_eq!(length, bytes.len());
        let mut decoder = FrameDecoder::<ClientFrame>::new(LIMITS);
        for (at, byte) in bytes.iter().enumerate() {
            assert_eq!(decoder.next_frame(), Ok(None));
            assert_eq!(decoder.finish().is_ok(), at == 0);
            assert_eq!(decoder.is_within_frame(), at > 0);
            decoder.push(&[*byte]);
        }
        assert_eq!(decoder.next_frame(), Ok(Some((frame, length))));
        assert_eq!(decoder.finish(), Ok(()));
        assert!(!decoder.is_within_frame());
    }

    #[test]
    fn an_oversized_frame_is_refused_at_its_header() {
        let mut decoder = FrameDecoder::<ClientFrame>::new(LIMITS);
        decoder.push(&u32::MAX.to_le_bytes());
        assert_eq!(decoder.next_frame(), Err(WireError::TooLong { bytes: u32::MAX as usize, limit: 4096 }));
    }

    proptest! {
        /// Random bytes never panic, never loop and never hold more than one frame and one piece.
        #[test]
        fn noise_ends_in_an_error_or_waits(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20)) {
            let mut client = FrameDecoder::<ClientFrame>::new(LIMITS);
            let mut server = FrameDecoder::<ServerFrame>::new(LIMITS);
            let (mut client_open, mut server_open) = (true, true);
            for piece in &pieces {
                if client_open {
                    client.push(piece);
                    while let Some(more) = client.next_frame().unwrap_or_else(|_| { client_open = false; None }) {
                        prop_assert!(more.1 >= HEADER);
                    }
                    prop_assert!(!client_open || client.buffer.len() <= LIMITS.frame_bytes + HEADER + 300);
                }
                if server_open {
                    server.push(piece);
                    while let Some(more) = server.next_frame().unwrap_or_else(|_| { server_open = false; None }) {
                        prop_assert!(more.1 >= HEADER);
                    }
                }
            }
        }
    }
}
