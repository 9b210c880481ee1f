//! SMS-COMMAND: what a phone asks of a text that it has sent; and texts that take the place of older ones.

use super::Centre;
use super::accept::No;
use super::answer::Reply;
use super::read::Letter;
use super::record::{Recipient, Sender, Text};
use crate::gsm::report::Command;
use crate::ident::Imsi;
use crate::site::{Request, World};

impl Centre {
    pub(super) fn command(
        &mut self,
        w: &mut World<'_, '_>,
        request: &Request<'_>,
        reply: &Reply,
        sender: Imsi,
        _command: &Command,
        digests: &[[u8; 16]],
    ) {
        self.refuse(w, request, reply, Some(sender), "", No::CommandUnknown, digests);
    }

    /// The texts that this one takes the place of (TS 23.040 §9.2.3.9).
    pub(super) fn replaced(
        &mut self,
        _w: &mut World<'_, '_>,
        _recipient: Recipient,
        _sender: &Sender,
        _letter: &Letter,
    ) -> Result<Vec<Text>, No> {
        Ok(Vec::new())
    }

    pub(super) fn replace(&mut self, _w: &mut World<'_, '_>, _text: &Text) {}
}
