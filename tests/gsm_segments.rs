//! User data headers, and long texts in segments: the numbers of TS 23.040, and what holds for any text.

use encamp::gsm::header::{self, Concatenation, Element, Ports, Reference};
use encamp::gsm::national::{Language, Languages};
use encamp::gsm::rpdu::{from_hex, to_hex};
use encamp::gsm::segment::{self, Cut, NotWhole, Uncut};
use encamp::gsm::text::{self, Coding, OCTETS_MAX, SEPTETS_MAX, UserData};
use proptest::prelude::*;

fn hex(text: &str) -> Vec<u8> {
    from_hex(text.as_bytes()).expect("hex")
}

const SHORT: Reference = Reference::Short(0xA7);
const LONG: Reference = Reference::Long(0xA7B8);

/// TS 23.040 §9.2.3.24: a header is passed through, whatever is in it.
#[test]
fn elements_are_read_and_written() {
    let check = |text: &str, expected: &[(u8, &str)]| {
        let expected: Vec<Element> = expected
            .iter()
            .map(|(identifier, content)| Element { identifier: *identifier, content: hex(content) })
            .collect();
        assert_eq!(header::elements(&hex(text)), expected, "{text}");
        assert_eq!(to_hex(&header::write(&expected).unwrap()), text);
    };
    check("", &[]);
    check("050003a70202", &[(0x00, "a70202")]);
    check("0b05040b8423f00003a70202", &[(0x05, "0b8423f0"), (0x00, "a70202")]);
    check("047f00ff00", &[(0x7F, ""), (0xFF, "")]);

    // One octet too few or too many in the last element: the header is skipped, and nothing in it counts.
    for broken in ["040003a702", "060003a7020200", "010003a70202", "00"] {
        assert_eq!(header::elements(&hex(broken)), [], "{broken}");
    }
    assert_eq!(
        header::write(&[Element { identifier: 0x0A, content: vec![0; 137] }]).map(|header| header.len()),
        Some(140)
    );
    assert_eq!(header::write(&[Element { identifier: 0x0A, content: vec![0; 138] }]), None);
}

/// TS 23.040 §9.2.3.24.1, §9.2.3.24.8.
#[test]
fn concatenation_has_a_reference_of_8_or_16_bits() {
    let check = |text: &str, expected: Option<(Reference, u8, u8)>| {
        let expected = expected.map(|(reference, parts, part)| Concatenation { reference, parts, part });
        assert_eq!(Concatenation::of(&hex(text)), expected, "{text}");
    };
    check("050003a70301", Some((SHORT, 3, 1)));
    check("060804a7b80303", Some((LONG, 3, 3)));
    check("050003a70101", Some((SHORT, 1, 1)));
    // None; part 0; part 4 of 3; of no parts; of another length.
    check("", None);
    check("050003a70300", None);
    check("050003a70304", None);
    check("050003a70000", None);
    check("060004a7030100", None);
    // The last one counts, and one that is none does not.
    check("0b0003a703010804a7b80202", Some((LONG, 2, 2)));
    check("0b0804a7b802020003a70301", Some((SHORT, 3, 1)));
    check("0a0003a703010003a70300", Some((SHORT, 3, 1)));
    for text in ["050003a70301", "060804a7b80303"] {
        let element = Concatenation::of(&hex(text)).unwrap().element();
        assert_eq!(to_hex(&header::write(&[element]).unwrap()), text);
    }
}

/// TS 23.040 §9.2.3.24.3, §9.2.3.24.4.
#[test]
fn ports_have_8_or_16_bits() {
    let check = |text: &str, expected: Ports| {
        assert_eq!(Ports::of(&hex(text)), Some(expected), "{text}");
        assert_eq!(to_hex(&header::write(&[expected.element()]).unwrap()), text);
    };
    check("040402f0f1", Ports::Short { destination: 0xF0, originator: 0xF1 });
    check("0605040b8423f0", Ports::Long { destination: 2948, originator: 9200 });
    assert_eq!(Ports::of(&hex("0504030b8423")), None);
    assert_eq!(Ports::of(&hex("050003a70301")), None);
}

/// 153 and 67, 152 and 66: what fits behind the header.
#[test]
fn a_long_text_is_cut_where_the_standard_has_room() {
    let check = |text: String, reference: Reference, expected: &[usize]| {
        let segments = segment::split(&text, &Cut::new(reference)).unwrap();
        let lengths: Vec<usize> =
            segments.iter().map(|one| text::decode(one).unwrap().encode_utf16().count()).collect();
        assert_eq!(lengths, expected, "{text}");
        assert_eq!(segments.iter().map(text::decode).collect::<Result<String, _>>().unwrap(), text);
        for (place, one) in segments.iter().enumerate() {
            let concatenation = Concatenation::of(one.header().unwrap());
            let expected = Concatenation { reference, parts: segments.len() as u8, part: place as u8 + 1 };
            assert_eq!(concatenation, (segments.len() > 1).then_some(expected));
            assert_eq!(one.has_header, segments.len() > 1);
        }
    };
    check(String::new(), SHORT, &[0]);
    check("a".repeat(160), SHORT, &[160]);
    check("a".repeat(161), SHORT, &[153, 8]);
    check("a".repeat(161), LONG, &[152, 9]);
    check("a".repeat(306), SHORT, &[153, 153]);
    check("a".repeat(307), SHORT, &[153, 153, 1]);
    check("ж".repeat(70), SHORT, &[70]);
    check("ж".repeat(71), SHORT, &[67, 4]);
    check("ж".repeat(71), LONG, &[66, 5]);
    // The escape would be the 153rd septet; the first half of the tent the 67th unit.
    check("a".repeat(152) + "€" + &"a".repeat(20), SHORT, &[152, 21]);
    check("a".repeat(151) + "€" + &"a".repeat(20), SHORT, &[152, 20]);
    check("a".repeat(66) + "🏕" + &"a".repeat(10), SHORT, &[66, 12]);
    check("🏕".repeat(36), LONG, &[66, 6]);
    check("🏕".repeat(36), SHORT, &[66, 6]);
    // One foreign character, and all of it is UCS-2.
    check("a".repeat(100) + "ж", SHORT, &[67, 34]);
}

#[test]
fn fill_bits_are_where_phones_look_for_the_text() {
    let segments = segment::split(&("x".repeat(153) + "camp camp"), &Cut::new(SHORT)).unwrap();
    let [_, second] = &segments[..] else { panic!() };
    assert_eq!(segments[0].bytes.len(), OCTETS_MAX);
    assert_eq!((segments[0].length, second.length), (160, 7 + 9));
    // The example of tests/gsm_sms.rs.
    assert!(to_hex(&second.bytes).starts_with("050003a70202c6e1361c"));
    let segments = segment::split(&("x".repeat(152) + "camp camp"), &Cut::new(LONG)).unwrap();
    assert_eq!((segments[0].length, segments[1].length), (160, 8 + 9));
}

#[test]
fn what_else_is_in_the_header_takes_its_room() {
    let ports = Ports::Long { destination: 2948, originator: 9200 };
    let cut = Cut { elements: vec![ports.element()], ..Cut::new(SHORT) };
    let one = segment::split("camp", &cut).unwrap();
    assert_eq!(Ports::of(one[0].header().unwrap()), Some(ports));
    // 7 octets of header are 8 septets, 12 are 14.
    assert_eq!(segment::split(&"a".repeat(152), &cut).unwrap().len(), 1);
    let two = segment::split(&"a".repeat(153), &cut).unwrap();
    assert_eq!(two.iter().map(|one| text::decode(one).unwrap().len()).collect::<Vec<_>>(), [146, 7]);

    // Concatenation and languages are the cut's own.
    let elements = vec![hex("a70909"), hex("0d")].into_iter().zip([0x00, 0x25]);
    let elements = elements.map(|(content, identifier)| Element { identifier, content }).collect();
    assert!(!segment::split("camp", &Cut { elements, ..Cut::new(SHORT) }).unwrap()[0].has_header);
}

#[test]
fn what_cannot_be_cut_is_told_why() {
    assert_eq!(segment::split(&"a".repeat(255 * 153), &Cut::new(SHORT)).map(|all| all.len()), Ok(255));
    assert_eq!(segment::split(&"a".repeat(255 * 153 + 1), &Cut::new(SHORT)), Err(Uncut::Long));
    let wide =
        |octets| Cut { elements: vec![Element { identifier: 0x0A, content: vec![0; octets] }], ..Cut::new(SHORT) };
    assert_eq!(segment::split("aaaaaaaa", &wide(138)), Err(Uncut::Header));
    assert_eq!(segment::split("🏕", &wide(135)), Err(Uncut::Header));
    assert_eq!(Uncut::Long.to_string(), "a text of more than 255 segments");
}

/// TS 23.040 §9.2.3.24.15, §9.2.3.24.16: chosen by the caller, carried in the header.
#[test]
fn a_language_that_is_chosen_is_named_in_each_segment() {
    let languages = Languages { locking: Some(Language::Turkish), single: Some(Language::Turkish) };
    let cut = Cut { languages, ..Cut::new(SHORT) };
    let one = segment::split("ığüşöç İĞŞ", &cut).unwrap();
    assert_eq!((one.len(), one[0].coding), (1, Coding::GSM7));
    assert_eq!(to_hex(one[0].header().unwrap()), "06240101250101");
    assert_eq!(text::decode(&one[0]).unwrap(), "ığüşöç İĞŞ");
    // Not chosen, it is UCS-2, as it always was.
    assert_eq!(text::encode("ığüşöç İĞŞ").unwrap().coding, Coding::UCS2);
    // What the tables lack is UCS-2, and then nothing names them.
    let foreign = segment::split("ığüж", &cut).unwrap();
    assert_eq!((foreign[0].coding, foreign[0].has_header), (Coding::UCS2, false));

    // 13 octets of header are 14 septets with the concatenation.
    let two = segment::split(&"ş".repeat(161), &cut).unwrap();
    assert_eq!(two.iter().map(|one| text::decode(one).unwrap().chars().count()).collect::<Vec<_>>(), [146, 15]);
    assert!(two.iter().all(|one| Languages::of(one.header().unwrap()) == languages));

    // Spanish has no locking shift table: nothing says that it was used. A language that is not described is skipped.
    let spanish = Languages { locking: Some(Language::Spanish), single: None };
    assert!(!segment::split("año", &Cut { languages: spanish, ..Cut::new(SHORT) }).unwrap()[0].has_header);
    for header in ["03250102", "03250100", "0324010e", "0425020101", "03260101"] {
        assert_eq!(Languages::of(&hex(header)), Languages::default(), "{header}");
    }
}

#[test]
fn segments_are_put_in_order_or_it_is_told_what_is_missing() {
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(10);
    let segments = segment::split(&text, &Cut::new(SHORT)).unwrap();
    let [a, b, c] = &segments[..] else { panic!("{}", segments.len()) };
    assert_eq!(segment::whole_text(&segment::in_order(&[c, a, b, a]).unwrap()), Ok(text.clone()));
    assert_eq!(segment::in_order(&[c, a]), Err(NotWhole::Missing(vec![2])));
    assert_eq!(segment::in_order(&[b]), Err(NotWhole::Missing(vec![1, 3])));
    assert_eq!(segment::in_order(&[]), Err(NotWhole::Empty));
    let other = segment::split(&text, &Cut::new(Reference::Long(0xA7))).unwrap();
    assert_eq!(segment::in_order(&[a, &other[1], c]), Err(NotWhole::Foreign));
    let alone = text::encode("alone").unwrap();
    assert_eq!(segment::in_order(&[&alone]), Ok(vec![&alone]));
    assert_eq!(segment::in_order(&[a, &alone]), Err(NotWhole::Foreign));
    assert_eq!(segment::in_order(&[&alone, a]), Err(NotWhole::Foreign));
    assert_eq!(NotWhole::Foreign.to_string(), "segments of different messages");

    // Phones that cut anywhere: an escape, half a tent.
    let gsm = |septets: &[u8]| UserData {
        coding: Coding::GSM7,
        has_header: false,
        length: septets.len() as u8,
        bytes: text::pack(septets, 0),
    };
    let ucs2 = |bytes: &str| UserData { coding: Coding::UCS2, has_header: false, length: 2, bytes: hex(bytes) };
    assert_eq!(segment::whole_text(&[&gsm(&[0x61, 0x1B]), &gsm(&[0x65, 0x61])]).unwrap(), "a€a");
    assert_eq!(segment::whole_text(&[&ucs2("d83c"), &ucs2("dfd5")]).unwrap(), "🏕");
    assert_eq!(segment::whole_text(&[&ucs2("d83c"), &gsm(&[0x61])]).unwrap(), "\u{fffd}a");
}

fn any_languages() -> impl Strategy<Value = Languages> {
    let language = || prop::option::of(prop::sample::select(&Language::ALL[..]));
    (language(), language()).prop_map(|(locking, single)| Languages { locking, single })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn any_text_is_cut_and_put_together(
        text in prop_oneof!["[ -~€£Δ]{0,500}", "[ -~ж🏕]{0,300}", "[€{}a]{100,300}", "[ığüşöçİĞŞ a-z€]{0,400}", any::<String>()],
        reference in prop_oneof![any::<u8>().prop_map(Reference::Short), any::<u16>().prop_map(Reference::Long)],
        languages in any_languages(), with_ports in any::<bool>(), shuffle in any::<prop::sample::Index>(),
    ) {
        let ports = Ports::Long { destination: 1, originator: 2 };
        let elements = if with_ports { vec![ports.element()] } else { vec![] };
        let segments = segment::split(&text, &Cut { reference, languages, elements }).unwrap();
        for one in &segments {
            prop_assert!(one.bytes.len() <= OCTETS_MAX && (one.coding != Coding::GSM7 || usize::from(one.length) <= SEPTETS_MAX));
            prop_assert_eq!(one.bytes.len(), one.coding.octets(one.length));
            let said = text::decode(one).unwrap();
            let lost = char::REPLACEMENT_CHARACTER;
            prop_assert!(!said.contains(lost) || text.contains(lost));
            prop_assert_eq!(Ports::of(one.header().unwrap()), with_ports.then_some(ports));
            prop_assert_eq!(one.coding, segments[0].coding);
        }
        let parts: String = segments.iter().map(|one| text::decode(one).unwrap()).collect();
        prop_assert_eq!(&parts, &text);
        // One segment fewer would not do: the first character of each next one has no room in the one before.
        for pair in segments.windows(2) {
            let [one, next] = pair else { unreachable!() };
            let first = text::decode(next).unwrap().chars().next().unwrap();
            let full = match one.coding {
                Coding::GSM7 => usize::from(one.length) + text::septets_in(&first.to_string(), languages).unwrap().len() > SEPTETS_MAX,
                _ => one.bytes.len() + 2 * first.len_utf16() > OCTETS_MAX,
            };
            prop_assert!(full);
        }
        let mut parts: Vec<&UserData> = segments.iter().collect();
        let at = shuffle.index(parts.len());
        parts.rotate_left(at);
        parts.push(parts[0]);
        if segments.len() > 1 {
            prop_assert_eq!(segment::whole_text(&segment::in_order(&parts).unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn any_header_is_read_and_any_elements_are_written(
        octets in prop::collection::vec(any::<u8>(), 0..160),
        elements in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..12)), 0..9),
    ) {
        let _ = (header::elements(&octets), Concatenation::of(&octets), Ports::of(&octets), Languages::of(&octets));
        let elements: Vec<Element> = elements.into_iter().map(|(identifier, content)| Element { identifier, content }).collect();
        if let Some(written) = header::write(&elements) {
            prop_assert_eq!(header::elements(&written), elements);
        }
    }
}
