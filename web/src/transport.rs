//! A connection that ends when nobody reads what it says.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::crowd::Place;

/// A connection with its place among the others.
#[derive(Debug)]
pub(crate) struct Guarded<T> {
    io: T,
    place: Place,
    /// How long bytes may wait for their reader.
    patience: Duration,
    /// Ends that time, while they wait.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<T> Guarded<T> {
    pub(crate) fn new(io: T, place: Place, patience: Duration) -> Guarded<T> {
        Guarded { io, place, patience, waiting: None }
    }

    pub(crate) fn get_ref(&self) -> &T {
        &self.io
    }

    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        if self.place.is_cut(context.waker()) { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// After an attempt to write: the same, or an error if the reader has been waited for long enough.
    fn watched<R>(&mut self, context: &mut Context<'_>, attempt: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if attempt.is_ready() {
            self.waiting = None;
            self.place.set_blocked(false);
            self.place.moved();
            return attempt;
        }
        self.place.set_blocked(true);
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if read.is_ready() && self.waiting.is_none() {
            // Questions that come while nobody reads the answers are no progress.
            self.place.moved();
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let attempt = Pin::new(&mut self.io).poll_write(context, bytes);
        self.watched(context, attempt)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;
    use crate::crowd::Crowd;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_is_cut() {
        let (io, _reader) = duplex(64);
        let mut guarded = Guarded::new(io, Crowd::new(1).try_enter().expect("a place"), PATIENCE);
        let began = Instant::now();
        let error = guarded.write_all(&[0; 1_000]).await.expect_err("nobody reads");
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, PATIENCE.as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_read_slowly_is_not() {
        let (io, mut reader) = duplex(64);
        let mut guarded = Guarded::new(io, Crowd::new(1).try_enter().expect("a place"), PATIENCE);
        let writer = tokio::spawn(async move { guarded.write_all(&[0; 1_000]).await });
        let mut read = 0;
        while read < 1_000 {
            tokio::time::sleep(PATIENCE / 2).await;
            read += reader.read(&mut [0; 64]).await.expect("bytes");
        }
        writer.await.expect("no panic").expect("it was read");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_makes_room_is_woken() {
        let crowd = Crowd::new(1);
        let (io, _other) = duplex(64);
        let mut guarded = Guarded::new(io, crowd.enter().await, PATIENCE);
        let reading = tokio::spawn(async move { guarded.read(&mut [0; 1]).await });
        let _next = crowd.enter().await;
        let error = reading.await.expect("no panic").expect_err("it has made room");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
