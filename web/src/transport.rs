//! A connection that ends when nobody reads what it says.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::crowd::ConnectionPlace;

/// A connection with its place among the others.
#[derive(Debug)]
pub(crate) struct Guarded<T> {
    io: T,
    place: ConnectionPlace,
    /// How long bytes may wait for their reader.
    patience: Duration,
    /// Ends that time, while they wait.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<T> Guarded<T> {
    pub(crate) fn new(io: T, place: ConnectionPlace, patience: Duration) -> Guarded<T> {
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
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;
    use crate::crowd::Crowd;

    fn guarded(io: DuplexStream, patience: Duration) -> Guarded<DuplexStream> {
        Guarded::new(io, Crowd::new(1).try_enter().expect("a place"), patience)
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_is_cut() {
        let patience = Duration::from_millis(50);
        let (io, _reader) = duplex(64);
        let began = Instant::now();
        let error = guarded(io, patience).write_all(&[0; 1_000]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= patience, "cut after {:?}", began.elapsed());
    }

    /// Each time that something is read, the reader has the whole patience again. The deadlines are compared, so that no
    /// stall of the host decides.
    #[tokio::test]
    async fn an_answer_that_is_read_slowly_is_not() {
        let patience = Duration::from_secs(600);
        let (io, mut reader) = duplex(64);
        let mut guarded = guarded(io, patience);
        let mut context = Context::from_waker(Waker::noop());
        let mut deadlines = Vec::new();
        for _ in 0..4 {
            let mut write = || Pin::new(&mut guarded).poll_write(&mut context, &[0; 64]);
            assert!(matches!(write(), Poll::Ready(Ok(64))), "there is room");
            let full = Instant::now();
            assert!(write().is_pending(), "nobody has read");
            let deadline = guarded.waiting.as_ref().expect("it waits for its reader").deadline();
            assert!(deadline >= full + patience, "{:?} are left", deadline - full);
            assert!(Pin::new(&mut guarded).poll_write(&mut context, &[0; 64]).is_pending());
            let again = guarded.waiting.as_ref().expect("it still waits").deadline();
            assert_eq!(again, deadline, "without progress the patience goes on running out");
            deadlines.push(deadline);
            reader.read_exact(&mut [0; 64]).await.expect("bytes");
        }
        assert!(deadlines.is_sorted(), "{deadlines:?}");
    }

    #[tokio::test]
    async fn whoever_makes_room_is_woken() {
        let crowd = Crowd::new(1);
        let (io, _other) = duplex(64);
        let mut guarded = Guarded::new(io, crowd.enter().await, Duration::from_secs(600));
        let reading = tokio::spawn(async move { guarded.read(&mut [0; 1]).await });
        let _next = crowd.enter().await;
        let error = reading.await.expect("no panic").expect_err("it has made room");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
