//! A mail becomes texts: what is taken, what is refused, and what the phone reads.

mod desk;

use desk::mail::*;

#[test]
fn a_mail_becomes_one_text() {
    let mut desk = mail_desk(|_| ());
    let reply = bring(&mut desk, mail(1, "m1", "Hello"));
    assert_eq!((reply.code, reply.status), (250, (2, 0, 0)), "{reply:?}");
    assert_eq!(inbox(&mut desk), [(1, CENTRE.into(), "carol@example.org: Hello".into())]);
}
