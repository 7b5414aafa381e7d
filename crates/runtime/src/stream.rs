//! Framed messages over a byte stream (TLS or Unix).
//!
//! Invariants:
//! - messages leave in the order of [`MessageSender::send`]; those queued together leave in as
//!   few writes as possible;
//! - the outgoing queue holds at most [`QUEUE_MAX_FRAMES`] frames and about
//!   [`QUEUE_MAX_BYTES`]; when it is full the sender is told and nothing is dropped silently:
//!   a peer that slow is disconnected by its owner;
//! - a malformed frame ends the stream.

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::DropReason;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use wire::{Channel, DecodeError, FrameBuffer};

use crate::traffic::PortCounters;

/// Frames waiting for the network. A second's worth of decisions at the rates of design.md.
pub const QUEUE_MAX_FRAMES: usize = 4_096;
/// Bytes waiting for the network: some snapshot chunks; what a dead peer may pin in memory.
pub const QUEUE_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Most bytes put into one write: two TLS records, so that a burst costs few system calls.
const COALESCE_MAX_BYTES: usize = 32 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 32 * 1024;

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SendError {
    /// The peer does not read as fast as we send: close the connection.
    #[error("outgoing queue full")]
    Full,
    /// The connection has ended.
    #[error("connection closed")]
    Closed,
}

/// Why no message came.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// The connection failed.
    #[error("connection: {0}")]
    Connection(#[from] io::Error),
    /// The peer sent something else than our frames.
    #[error("from the peer: {0}")]
    Malformed(#[from] DecodeError),
}

/// Splits `stream` into a sender of `Out` and a receiver of `In`, both framed for `channel`.
/// Starts a task that writes; it ends when every sender is dropped (after the last byte), at
/// [`MessageSender::abort`], or when the connection fails.
pub fn framed<S, In, Out>(
    stream: S,
    channel: Channel,
) -> (MessageSender<Out>, MessageReceiver<ReadHalf<S>, In>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    let (sender, frames) = mpsc::channel(QUEUE_MAX_FRAMES);
    let queued_bytes = Arc::new(AtomicUsize::new(0));
    let task = tokio::spawn(write_frames(writer, frames, Arc::clone(&queued_bytes)));
    let sender = MessageSender {
        channel,
        frames: sender,
        queued_bytes,
        writer: task.abort_handle(),
        counters: None,
        message: PhantomData,
    };
    let receiver = MessageReceiver {
        reader,
        buffer: FrameBuffer::new(channel),
        counters: None,
        message: PhantomData,
    };
    (sender, receiver)
}

async fn write_frames<S: AsyncWrite>(
    mut writer: WriteHalf<S>,
    mut frames: mpsc::Receiver<Vec<u8>>,
    queued_bytes: Arc<AtomicUsize>,
) -> io::Result<()> {
    while let Some(mut bytes) = frames.recv().await {
        while bytes.len() < COALESCE_MAX_BYTES
            && let Ok(more) = frames.try_recv()
        {
            bytes.extend_from_slice(&more);
        }
        writer.write_all(&bytes).await?;
        writer.flush().await?;
        queued_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
    }
    writer.shutdown().await
}

/// The sending end; clones share the queue.
#[derive(Debug)]
pub struct MessageSender<Out> {
    channel: Channel,
    frames: mpsc::Sender<Vec<u8>>,
    queued_bytes: Arc<AtomicUsize>,
    writer: AbortHandle,
    counters: Option<PortCounters>,
    message: PhantomData<fn(Out)>,
}

impl<Out> Clone for MessageSender<Out> {
    fn clone(&self) -> Self {
        Self {
            channel: self.channel,
            frames: self.frames.clone(),
            queued_bytes: Arc::clone(&self.queued_bytes),
            writer: self.writer.clone(),
            counters: self.counters.clone(),
            message: PhantomData,
        }
    }
}

impl<Out: Serialize> MessageSender<Out> {
    /// Counts what is sent.
    #[must_use]
    pub fn counted(mut self, counters: &PortCounters) -> Self {
        self.counters = Some(counters.clone());
        self
    }

    /// Queues `message`.
    ///
    /// # Errors
    /// [`SendError`]; the message is then not sent.
    pub fn send(&self, message: &Out) -> Result<(), SendError> {
        let frame = wire::encode(self.channel, message);
        let length = frame.len();
        if self.queued_bytes.load(Ordering::Relaxed) + length > QUEUE_MAX_BYTES {
            return Err(SendError::Full);
        }
        // Counted before it can be taken, so that the writer never subtracts what is not there.
        self.queued_bytes.fetch_add(length, Ordering::Relaxed);
        self.frames.try_send(frame).map_err(|error| {
            self.queued_bytes.fetch_sub(length, Ordering::Relaxed);
            match error {
                mpsc::error::TrySendError::Full(_) => SendError::Full,
                mpsc::error::TrySendError::Closed(_) => SendError::Closed,
            }
        })?;
        if let Some(counters) = &self.counters {
            counters.sent();
        }
        Ok(())
    }

    /// Bytes that have not been written yet, for senders that pace themselves.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// Ends the connection at once; what is queued is lost.
    pub fn abort(&self) {
        self.writer.abort();
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct MessageReceiver<R, In> {
    reader: R,
    buffer: FrameBuffer,
    counters: Option<PortCounters>,
    message: PhantomData<fn() -> In>,
}

impl<R: AsyncRead + Unpin, In: DeserializeOwned> MessageReceiver<R, In> {
    /// Counts what is received, and what is not taken.
    #[must_use]
    pub fn counted(mut self, counters: &PortCounters) -> Self {
        self.counters = Some(counters.clone());
        self
    }

    /// The next message, `None` when the peer has closed. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ReceiveError`]; the stream is then over.
    pub async fn next(&mut self) -> Result<Option<In>, ReceiveError> {
        loop {
            match self.buffer.next_frame() {
                Ok(Some(message)) => {
                    if let Some(counters) = &self.counters {
                        counters.received();
                    }
                    return Ok(Some(message));
                }
                Ok(None) => {}
                Err(error) => {
                    self.dropped(error.reason());
                    return Err(error.into());
                }
            }
            let mut bytes = [0; READ_BYTES];
            let ended = match self.reader.read(&mut bytes).await {
                Ok(0) => Ok(None),
                Ok(read) => {
                    self.buffer.extend(&bytes[..read]);
                    continue;
                }
                // A peer that dies does not say goodbye in TLS: it has closed all the same.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
                Err(error) => Err(error.into()),
            };
            if self.buffer.is_within_a_frame() {
                self.dropped(DropReason::Truncated);
            }
            return ended;
        }
    }

    fn dropped(&self, reason: DropReason) {
        if let Some(counters) = &self.counters {
            counters.dropped(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::Channel;

    use super::{QUEUE_MAX_BYTES, ReceiveError, SendError, framed};

    #[tokio::test]
    async fn messages_arrive_in_order_and_the_end_is_seen() {
        let (one, two) = tokio::io::duplex(1000);
        let (sender, _) = framed::<_, u32, Vec<u8>>(one, Channel::Vem);
        let (_, mut receiver) = framed::<_, Vec<u8>, u32>(two, Channel::Vem);
        for length in 0..200 {
            sender.send(&vec![7; length]).expect("room");
        }
        drop(sender);
        for length in 0..200 {
            let message = receiver
                .next()
                .await
                .expect("a sound stream")
                .expect("a message");
            assert_eq!(message, vec![7; length]);
        }
        assert!(matches!(receiver.next().await, Ok(None)));
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_fills_the_queue_and_no_more() {
        let (one, _unread) = tokio::io::duplex(1000);
        let (sender, _receiver) = framed::<_, u32, Vec<u8>>(one, Channel::Vem);
        let message = vec![7; 400_000];
        let accepted = (0..100)
            .take_while(|_| sender.send(&message).is_ok())
            .count();
        assert_eq!(accepted, QUEUE_MAX_BYTES / message.len());
        assert_eq!(sender.send(&message), Err(SendError::Full));
    }

    #[tokio::test]
    async fn rubbish_ends_the_stream() {
        let (mut one, two) = tokio::io::duplex(1000);
        let (_sender, mut receiver) = framed::<_, u32, u32>(two, Channel::Vem);
        tokio::io::AsyncWriteExt::write_all(&mut one, b"GET / HTTP/1.1\r\n")
            .await
            .expect("room");
        assert!(matches!(
            receiver.next().await,
            Err(ReceiveError::Malformed(_))
        ));
    }
}
