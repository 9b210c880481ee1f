//! RFC 3261 §18.3 and RFC 5626 §3.5.1: where messages end in a stream, however its bytes arrive.

mod wire;

use encamp::sip::parse::{MESSAGE_BYTES_MAX, parse};
use encamp::sip::stream::{Frame, Framer, FramingError};

fn frames(framer: &mut Framer) -> Vec<Result<Frame, FramingError>> {
    framer.by_ref().collect()
}

/// Everything there is, in one stream, with a ping between any two.
fn stream() -> (Vec<u8>, Vec<Result<Frame, FramingError>>) {
    let (mut bytes, mut expected) = (Vec::new(), Vec::new());
    for text in wire::ALL {
        let message = wire::message(text);
        bytes.extend_from_slice(&message);
        bytes.extend_from_slice(b"\r\n\r\n");
        expected.extend([Ok(Frame::Message(message)), Ok(Frame::Ping)]);
    }
    (bytes, expected)
}

#[test]
fn pieces_of_any_size_make_the_same_frames() {
    let (bytes, expected) = stream();
    for size in [1, 2, 3, 7, 100, 1499, bytes.len()] {
        let mut framer = Framer::new();
        let found: Vec<_> = bytes
            .chunks(size)
            .flat_map(|piece| {
                framer.push(piece);
                frames(&mut framer)
            })
            .collect();
        assert!(found == expected, "pieces of {size}");
        assert!(!framer.is_within_message());
    }
}

#[test]
fn a_single_line_end_is_no_ping() {
    let message = wire::message(wire::OPENBTS_REGISTER);
    let mut framer = Framer::new();
    framer.push(b"\r\n");
    assert_eq!(frames(&mut framer), []);
    assert!(!framer.is_within_message());
    framer.push(&message[..10]);
    assert_eq!(frames(&mut framer), []);
    assert!(framer.is_within_message());
    framer.push(&message[10..]);
    assert_eq!(frames(&mut framer), [Ok(Frame::Message(message))]);
    framer.push(b"\r\n\r");
    assert_eq!(frames(&mut framer), []);
    framer.push(b"\n");
    assert_eq!(frames(&mut framer), [Ok(Frame::Ping)]);
}

#[test]
fn without_content_length_there_is_no_body() {
    let text = wire::OPENBTS_REGISTER.replace("Content-Length: 0\n", "");
    let mut framer = Framer::new();
    framer.push(&wire::message(&format!("{text}{}", wire::OPENBTS_MESSAGE)));
    let found = frames(&mut framer);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0], Ok(Frame::Message(wire::message(&text))));
}

#[test]
fn a_frame_is_what_parse_reads() {
    let mut framer = Framer::new();
    framer.push(&stream().0);
    for frame in framer {
        if let Ok(Frame::Message(bytes)) = frame {
            assert!(parse(&bytes).is_ok());
        }
    }
}

#[test]
fn what_ends_a_connection() {
    let head = |length: &str| format!("REGISTER sip:a SIP/2.0\r\n{length}\r\n\r\n");
    let table = [
        (head("l: -1"), FramingError::ContentLength),
        (head("Content-Length: 1\r\nContent-Length: 2"), FramingError::ContentLength),
        (head("Content-Length: "), FramingError::ContentLength),
        (head("Content-Length: 65536"), FramingError::TooLong),
        (head("Content-Length: 4294967295"), FramingError::TooLong),
        (head(&format!("X: {}", "y".repeat(MESSAGE_BYTES_MAX))), FramingError::TooLong),
        ("y".repeat(MESSAGE_BYTES_MAX + 1), FramingError::TooLong),
    ];
    for (text, error) in table {
        let mut framer = Framer::new();
        framer.push(text.as_bytes());
        assert_eq!(frames(&mut framer), [Err(error)]);
        framer.push(&wire::message(wire::OPENBTS_REGISTER));
        assert_eq!(frames(&mut framer), [], "nothing after an error");
    }
}

/// Drips of one byte, a head that never ends and a flood of tiny frames must cost as little as anything else: the test
/// takes minutes where time grows with the square.
#[test]
fn slow_and_tiny_input_takes_linear_time() {
    let mut framer = Framer::new();
    for _ in 0..MESSAGE_BYTES_MAX {
        framer.push(b"y");
        assert_eq!(framer.next(), None);
    }
    let mut framer = Framer::new();
    framer.push(&b"\r\n\r\n".repeat(500_000));
    assert_eq!(framer.count(), 500_000);
}
