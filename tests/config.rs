//! What is said of an operator's files, and what they mean.

use encamp::config::read::{Source, Sources, read};

#[test]
fn demo() {
    let main = Source { name: "demo.toml".into(), text: include_str!("../config/demo.toml").into() };
    let (settings, notes) = read(&Sources { main, ..Sources::default() }).unwrap();
    assert_eq!(notes, []);
    assert_eq!(settings.replicas.len(), 4);
}
