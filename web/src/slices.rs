//! Bodies that are handed over in slices: what the server keeps of an answer that is not read yet is one of them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::web::Bytes;

/// Bytes of a slice. The server takes no other while as many wait to be written.
const SLICE: usize = 32 << 10;

/// A body in slices.
#[derive(Debug)]
pub(crate) struct Slices {
    body: BoxBody,
    /// What the body has handed over already.
    rest: Bytes,
}

impl Slices {
    pub(crate) fn of(body: impl MessageBody + 'static) -> Slices {
        Slices { body: BoxBody::new(body), rest: Bytes::new() }
    }
}

impl MessageBody for Slices {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_next(context)) {
                Some(Ok(bytes)) => self.rest = bytes,
                end => return Poll::Ready(end),
            }
        }
        let length = self.rest.len().min(SLICE);
        Poll::Ready(Some(Ok(self.rest.split_to(length))))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_body_comes_in_slices_and_whole() {
        let text: Vec<u8> = (0..2 * SLICE + 7).map(|at| at as u8).collect();
        let mut slices = Slices::of(Bytes::from(text.clone()));
        assert_eq!(slices.size(), BodySize::Sized(text.len() as u64));
        let (mut lengths, mut read) = (Vec::new(), Vec::new());
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(slice)) = Pin::new(&mut slices).poll_next(&mut context) {
            let slice = slice.expect("no error");
            lengths.push(slice.len());
            read.extend_from_slice(&slice);
        }
        assert_eq!((lengths, read), (vec![SLICE, SLICE, 7], text));
    }
}
