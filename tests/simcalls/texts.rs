//! Texts.

use encamp::sip::parse::Message;

use crate::world::World;

impl World {
    pub fn other_acts(&mut self, _phone: usize, _dice: u64) {}

    pub fn text_answered(&mut self, _cell: usize, _message: &Message<'_>) {}

    pub fn text_comes(&mut self, _cell: usize, _message: &Message<'_>, _bytes: &[u8]) {}

    pub fn text_leaves(&mut self, _node: usize, _cell: usize, _message: &Message<'_>) {}
}
