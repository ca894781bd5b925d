//! Serving one client: receive, handle, answer, until it goes.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use potemkin_vfio_user::fdpass::ReceiveError;
use potemkin_vfio_user::{Errno, MessageType};
use tokio::io::Interest;

use crate::control::Client;
use crate::descriptors::{Bundle, Inherited};
use crate::dispatch::Dispatch;
use crate::error::Fault;
use crate::function::Function;
use crate::input::{Input, Received};
use crate::saved::{RestoreError, SavedClient};
use crate::watch::{Watched, watch};

/// Longest between two parts of a message. Clients send them at once.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connected client, and everything that is dropped with it.
pub(crate) struct Connection<'f, F> {
    /// Watched for input only: else each reply that the client takes would wake this task.
    socket: Watched,
    /// A duplicate, watched for room, from the first time that there was none.
    room: Option<Watched>,
    client: Rc<Client>,
    input: Input,
    dispatch: Dispatch<'f, F>,
}

impl<'f, F: Function> Connection<'f, F> {
    /// Serves `socket`, which does not block and was accepted at `path`.
    pub(crate) fn new(function: &'f F, socket: OwnedFd, path: &'f Path) -> std::io::Result<Self> {
        let socket = Arc::new(socket);
        let dispatch = Dispatch::new(function, Arc::clone(&socket), path);
        let client = Rc::clone(dispatch.client());
        let socket = watch(socket, Interest::READABLE)?;
        Ok(Self {
            socket,
            room: None,
            client,
            input: Input::new(),
            dispatch,
        })
    }

    /// A client as it was saved. What it has announced is announced to the function again.
    pub(crate) fn restore(
        function: &'f F,
        path: &'f Path,
        saved: &SavedClient,
        inherited: &mut Inherited,
    ) -> Result<Self, RestoreError> {
        let socket = inherited.take(saved.socket)?;
        let mut connection = Self::new(function, socket, path)?;
        connection.input = Input::restore(&saved.input, inherited)?;
        connection.client.restore(saved, inherited)?;
        match connection.dispatch.restore(saved, inherited) {
            Ok(()) => Ok(connection),
            Err(error) => {
                connection.close();
                Err(error)
            }
        }
    }

    /// The client as it is between two messages.
    pub(crate) fn save(&self, bundle: &mut Bundle) -> std::io::Result<SavedClient> {
        let mut saved = SavedClient {
            socket: bundle.add(self.socket.get_ref())?,
            input: self.input.save(bundle)?,
            ..SavedClient::default()
        };
        self.client.save(&mut saved, bundle)?;
        self.dispatch.save(&mut saved, bundle)?;
        Ok(saved)
    }

    /// Serves until a version is agreed on; false when it is to pause first.
    pub(crate) async fn negotiate(
        &mut self,
        mut pause: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<bool, Fault> {
        while !self.dispatch.is_negotiated() {
            if !self.turn(pause.as_mut()).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Serves until the client goes or breaks the protocol; none when it is to pause.
    pub(crate) async fn run(
        &mut self,
        mut pause: Pin<&mut impl Future<Output = ()>>,
    ) -> Option<Fault> {
        loop {
            match self.turn(pause.as_mut()).await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(fault) => return Some(fault),
            }
        }
    }

    /// Withdraws everything that the client has given, and tells the function.
    pub(crate) fn close(mut self) {
        self.client.close();
        self.dispatch.close();
    }

    /// One receive, and everything that it brought. False: it is to pause instead, and nothing was received.
    async fn turn(&mut self, pause: Pin<&mut impl Future<Output = ()>>) -> Result<bool, Fault> {
        tokio::select! {
            biased;
            () = pause => return Ok(false),
            received = self.receive() => received?,
        }
        self.client.set_busy(true);
        let handled = self.handle_input().await;
        self.flush().await?;
        self.client.set_busy(false);
        handled?;
        self.dispatch.end_of_input();
        Ok(true)
    }

    /// Cancel-safe: what has come is in the input. Waits for as long as it takes for a message, but not for the rest of one: a client that is gone may have left us its own end.
    async fn receive(&mut self) -> Result<(), Fault> {
        if self.input.is_empty() {
            return poll_fn(|cx| self.poll_receive(cx)).await;
        }
        let rest = poll_fn(|cx| self.poll_receive(cx));
        let rest = tokio::time::timeout(MESSAGE_TIMEOUT, rest).await;
        rest.unwrap_or(Err(Fault::HalfMessage))
    }

    async fn handle_input(&mut self) -> Result<(), Fault> {
        loop {
            let (header, payload) = match self.input.next() {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.dispatch.refuse_header(&error);
                    return Err(error.into());
                }
            };
            let fds = self.input.take_fds();
            let payload = self.input.payload(payload);
            if header.message_type == MessageType::Reply {
                self.client
                    .dma
                    .complete(&header, payload, self.client.limit())?;
                continue;
            }
            self.dispatch.handle(&header, payload, fds).await?;
            if self.dispatch.replies().is_long() {
                self.flush().await?;
            }
        }
    }

    /// Sends the replies, and waits until the socket has taken them: nothing more is read from a client that does not
    /// read.
    async fn flush(&mut self) -> Result<(), Fault> {
        self.dispatch.replies().send(&self.client.link);
        if self.client.link.has_backlog() || self.client.link.is_broken() {
            poll_fn(|cx| self.poll_drain(cx)).await?;
        }
        Ok(())
    }

    /// Receives; meanwhile serves the INTx eventfds and sends what did not go at once.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.client.link.register(cx);
        while let Poll::Ready(then) = { self.client.irqs().poll_intx(cx) } {
            self.dispatch.then(then);
        }
        if self.client.link.has_backlog() {
            // What is left goes when the socket or a send wakes this task.
            if let Poll::Ready(Err(fault)) = self.poll_drain(cx) {
                return Poll::Ready(Err(fault));
            }
        }
        loop {
            let mut guard = ready!(self.socket.poll_read_ready(cx))?;
            match self.input.receive(guard.get_inner()) {
                Ok(Received::Drained) => guard.clear_ready(),
                Ok(Received::More) => {}
                Ok(Received::Closed) if self.input.is_empty() => {
                    return Poll::Ready(Err(Fault::Closed));
                }
                Ok(Received::Closed) => return Poll::Ready(Err(Fault::ClosedInMessage)),
                Err(ReceiveError::Os(Errno::AGAIN)) => {
                    guard.clear_ready();
                    continue;
                }
                Err(ReceiveError::Os(Errno::CONNRESET)) => return Poll::Ready(Err(Fault::Closed)),
                Err(ReceiveError::Os(errno)) => {
                    return Poll::Ready(Err(std::io::Error::from(errno).into()));
                }
                Err(ReceiveError::DescriptorsLost) => {
                    return Poll::Ready(Err(Fault::DescriptorsLost));
                }
            }
            return Poll::Ready(Ok(()));
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            if self.client.link.is_broken() {
                return Poll::Ready(Err(Fault::Closed));
            }
            let mut guard = ready!(room(&mut self.room, &self.socket)?.poll_write_ready(cx))?;
            if self.client.link.drain() {
                return Poll::Ready(Ok(()));
            }
            guard.clear_ready();
        }
    }
}

/// The duplicate of `socket` that is watched for room; made when it is first needed.
fn room<'a>(room: &'a mut Option<Watched>, socket: &Watched) -> std::io::Result<&'a Watched> {
    let made = match room.take() {
        Some(made) => made,
        None => watch(Arc::new(socket.get_ref().try_clone()?), Interest::WRITABLE)?,
    };
    Ok(room.insert(made))
}
