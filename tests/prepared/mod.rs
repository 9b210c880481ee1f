//! A messages' store as a busy centre leaves it, written without a box: for the test and the measurement that start one on it.
//!
//! Knows: what stands there for a text that waits ([`record`]); nothing of those that have ended.

use std::path::Path;
use std::time::{Duration, SystemTime};

use encamp::gsm::text;
use encamp::ident::Imsi;
use encamp::sms::record::{self, Fate, Payload, Recipient, Sender, Text};
use encamp::store::rocks::{RocksStore, Shared};
use encamp::store::{Batch, Store, StoreError, StoreId};

const TEXTS_PER_BATCH: usize = 1_000;

/// Texts of these words in the queues of these phones, `each` in each, as if they had come in turns. `directory` is that of the
/// messages' store, which nobody has open.
pub fn fill(
    directory: &Path,
    sender: Imsi,
    shown: &str,
    phones: &[Imsi],
    each: usize,
    words: impl Fn(usize, usize) -> String,
) {
    let shared = Shared::new().expect("RocksDB");
    let mut store =
        RocksStore::open(directory, StoreId::Messages, &shared, 0, Box::new(|_| {})).expect("the messages' store");
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970").as_millis();
    let now_ms = u64::try_from(now_ms).expect("a clock of this age");
    let count = phones.len() * each;
    let mut number = 0;
    let mut batch = Batch::default();
    for round in 0..each {
        for (index, imsi) in phones.iter().enumerate() {
            number += 1;
            let recipient = Recipient::Phone(*imsi);
            let data = text::encode(&words(index, round)).expect("a short text");
            let text = Text {
                number,
                accepted_ms: now_ms,
                // "(TP-OA, SCTS)" is one text to its phone.
                timestamp_s: now_ms / 1000 - each as u64 + round as u64,
                life_ms: 86_400_000,
                reference: number as u8,
                dialled: imsi.to_string(),
                ..Text::new(recipient, Sender::Phone(sender), shown.to_owned(), Payload::Text(data))
            };
            batch = batch
                .put(record::text_key(recipient, number), record::encode(&text))
                .put(record::fate_key(number), record::encode_fate(&Fate::Waits(recipient)));
            if number as usize % TEXTS_PER_BATCH == 0 || number as usize == count {
                write(&mut store, std::mem::take(&mut batch));
            }
        }
    }
    write(&mut store, Batch::default().put(record::NEXT_KEY, record::encode_number(number + 1)));
    while store.synced_seq() < store.written_seq() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The store refuses rather than wait for its own compaction; here there is time.
fn write(store: &mut RocksStore, batch: Batch) {
    loop {
        match store.write(batch.clone()) {
            Ok(_) => return,
            Err(StoreError::Stalled) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => panic!("{error}"),
        }
    }
}
