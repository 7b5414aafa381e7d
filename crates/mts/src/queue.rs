//! One bounded queue of messages.

use std::collections::VecDeque;

use model::Time;
use wire::broker::{Kind, Message};

use crate::limits::UNDELIVERABLE_RESERVE;

/// Messages in order of arrival, bounded in number and in bytes of bodies.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    items: VecDeque<(Time, Message)>,
    bytes: usize,
}

impl Queue {
    /// Appends, or hands the message back if the limits leave no room for it.
    pub(crate) fn push(
        &mut self,
        now: Time,
        message: Message,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<(), Message> {
        let reserve = if message.kind == Kind::Undeliverable {
            UNDELIVERABLE_RESERVE
        } else {
            0
        };
        let room = self.items.len() < messages_max + reserve
            && (self.bytes + message.body.len() <= bytes_max || message.body.is_empty());
        if !room {
            return Err(message);
        }
        self.bytes += message.body.len();
        self.items.push_back((now, message));
        Ok(())
    }

    /// Takes the oldest.
    pub(crate) fn pop(&mut self) -> Option<Message> {
        let (_, message) = self.items.pop_front()?;
        self.bytes -= message.body.len();
        Some(message)
    }

    /// When the oldest arrived.
    pub(crate) fn oldest(&self) -> Option<Time> {
        self.items.front().map(|(arrived, _)| *arrived)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sum of the bodies, counted anew (for checks).
    pub(crate) fn counted_bytes(&self) -> usize {
        self.items
            .iter()
            .map(|(_, message)| message.body.len())
            .sum()
    }
}
