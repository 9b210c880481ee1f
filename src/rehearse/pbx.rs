//! A PBX that calls the phones: a well-formed INVITE, the answer read, an ACK.
//!
//! Knows: RFC 3261 by way of rsip, on purpose another parser and writer than the box's own. Does not know: who should be where.
//! It does not call the phone it is redirected to: [`super::trunk`] does.
//! Limits: one INVITE at a time, [`ANSWER_WAIT`] each.
//! Read first: RFC 3261 §8.1.3.4, §17.1.1.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rsip::headers::ToTypedHeader;
use rsip::message::HeadersExt;
use rsip::{Header, Headers, Method, Param, Request, Response, Uri, Version};

/// Timer A: T1, 2·T1, 4·T1 (RFC 3261 §17.1.1.2), given up before Timer B.
const SEND_AT_MS: [u64; 4] = [0, 500, 1500, 3500];
pub const ANSWER_WAIT: Duration = Duration::from_millis(4500);

/// What a caller is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// 302: the user and the address of the Contact.
    Redirect {
        user: String,
        to: SocketAddr,
    },
    /// Any other final answer, with the cause of `Reason: Q.850`.
    Final {
        code: u16,
        cause: Option<u8>,
    },
    NoAnswer,
    /// An answer that a PBX cannot use, and why.
    Unreadable(String),
}

impl Told {
    /// In words, for the table.
    pub fn text(&self) -> String {
        match self {
            Told::Redirect { to, .. } => to.to_string(),
            Told::Final { code, cause: Some(cause) } => format!("{code}, cause {cause}"),
            Told::Final { code, cause: None } => format!("{code}, no cause"),
            Told::NoAnswer => "no answer".into(),
            Told::Unreadable(_) => "unreadable".into(),
        }
    }
}

pub struct Pbx {
    socket: UdpSocket,
    own: SocketAddr,
    call_count: u64,
    run: u64,
}

impl Pbx {
    /// Errors: the trunk's address cannot be bound here.
    pub fn new(address: SocketAddr) -> io::Result<Pbx> {
        let socket = UdpSocket::bind(address)?;
        let own = socket.local_addr()?;
        let mut run = [0; 8];
        getrandom::fill(&mut run).map_err(io::Error::other)?;
        Ok(Pbx { socket, own, call_count: 0, run: u64::from_be_bytes(run) })
    }

    pub fn address(&self) -> SocketAddr {
        self.own
    }

    /// Calls `uri` by way of the box at `to`, and says what came back; whatever it was is acknowledged.
    pub fn call(&mut self, to: SocketAddr, uri: &str) -> Told {
        self.call_count += 1;
        let invite = match self.invite(uri) {
            Ok(invite) => invite,
            Err(error) => return Told::Unreadable(format!("{uri} cannot be dialled: {error}")),
        };
        let response = match self.transact(to, &invite) {
            Ok(Some(response)) => response,
            Ok(None) => return Told::NoAnswer,
            Err(error) => return Told::Unreadable(error.to_string()),
        };
        acknowledge(&self.socket, to, &invite, &response);
        read(&response)
    }

    fn invite(&self, uri: &str) -> Result<Request, rsip::Error> {
        let (count, run) = (self.call_count, self.run);
        let draft = Draft {
            own: self.own,
            uri: Uri::try_from(uri)?,
            user: "rehearsal".into(),
            branch: format!("z9hG4bK{run:016x}{count}"),
            tag: format!("{run:x}"),
            call_id: format!("{run:016x}-{count}@{}", self.own.ip()),
            cseq: 1,
            body: format!(
                "v=0\r\no=pbx {count} 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 16484 RTP/AVP 3\r\na=rtpmap:3 GSM/8000\r\n",
                ip = self.own.ip()
            )
            .into_bytes(),
        };
        Ok(draft.invite())
    }

    /// Sends, again and again where nothing comes, and waits for the final answer to this INVITE.
    fn transact(&self, to: SocketAddr, invite: &Request) -> io::Result<Option<Response>> {
        let datagram = Vec::from(invite.clone());
        let (started, mut sent, mut heard) = (Instant::now(), 0, false);
        let mut buffer = vec![0; 65_536];
        loop {
            let elapsed = started.elapsed();
            if elapsed >= ANSWER_WAIT {
                return Ok(None);
            }
            let next = SEND_AT_MS.get(sent).map(|at_ms| Duration::from_millis(*at_ms)).filter(|_| !heard);
            if next.is_some_and(|at| at <= elapsed) {
                self.socket.send_to(&datagram, to)?;
                sent += 1;
                continue;
            }
            let wait = next.unwrap_or(ANSWER_WAIT).min(ANSWER_WAIT) - elapsed;
            self.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
            let len = match self.socket.recv_from(&mut buffer) {
                Ok((len, _)) => len,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
                Err(error) => return Err(error),
            };
            // What is no answer to this INVITE is late, or not for us.
            let Ok(response) = Response::try_from(&buffer[..len]) else { continue };
            if !is_for(&response, invite) {
                continue;
            }
            heard = true;
            if response.status_code.code() >= 200 {
                return Ok(Some(response));
            }
        }
    }
}

/// An INVITE before it is text.
pub(super) struct Draft {
    pub own: SocketAddr,
    pub uri: Uri,
    /// Who calls, as a number or a name.
    pub user: String,
    pub branch: String,
    pub tag: String,
    pub call_id: String,
    pub cseq: u32,
    pub body: Vec<u8>,
}

impl Draft {
    pub fn invite(self) -> Request {
        let Draft { own, uri, user, branch, tag, call_id, cseq, body } = self;
        let address = Uri {
            scheme: Some(rsip::Scheme::Sip),
            auth: Some((user.as_str(), None::<String>).into()),
            host_with_port: own.into(),
            ..Uri::default()
        };
        let via = rsip::typed::Via {
            version: Version::V2,
            transport: rsip::Transport::Udp,
            uri: Uri { host_with_port: own.into(), ..Uri::default() },
            params: vec![Param::Branch(branch.into())],
        };
        let from =
            rsip::typed::From { display_name: Some(user), uri: address.clone(), params: vec![Param::Tag(tag.into())] };
        let mut headers = Headers::default();
        headers.push(via.into());
        headers.push(rsip::headers::MaxForwards::default().into());
        headers.push(from.into());
        headers.push(rsip::typed::To { display_name: None, uri: uri.clone(), params: Vec::new() }.into());
        headers.push(Header::CallId(call_id.into()));
        headers.push(rsip::typed::CSeq { seq: cseq, method: Method::Invite }.into());
        headers.push(rsip::typed::Contact { display_name: None, uri: address, params: Vec::new() }.into());
        headers.push(Header::UserAgent("encamp rehearse".into()));
        headers.push(Header::ContentType("application/sdp".into()));
        headers.push(Header::ContentLength(body.len().to_string().into()));
        Request { method: Method::Invite, uri, version: Version::V2, headers, body }
    }
}

/// "The ACK request … MUST contain … the same branch, Call-ID, From and Request-URI as the INVITE, To of the response" (RFC 3261
/// §17.1.1.3). A box that redirects is stateless and drops it.
pub(super) fn acknowledge(socket: &UdpSocket, to: SocketAddr, invite: &Request, response: &Response) {
    let mut headers = Headers::default();
    for header in invite.headers.iter() {
        match header {
            Header::Via(_) | Header::MaxForwards(_) | Header::From(_) | Header::CallId(_) => {
                headers.push(header.clone());
            }
            Header::To(_) => headers.push(response.to_header().map_or(header.clone(), |to| to.clone().into())),
            Header::CSeq(cseq) => {
                let seq = cseq.typed().map_or(1, |cseq| cseq.seq);
                headers.push(rsip::typed::CSeq { seq, method: Method::Ack }.into());
            }
            _ => {}
        }
    }
    headers.push(rsip::headers::ContentLength::default().into());
    let ack = Request { method: Method::Ack, uri: invite.uri.clone(), version: Version::V2, headers, body: Vec::new() };
    // Nobody answers an ACK; one that is lost does no harm here.
    let _ = socket.send_to(&Vec::from(ack), to);
}

/// "a response matches a client transaction if its branch … is the same" (RFC 3261 §17.1.3); here with the Call-ID as well.
fn is_for(response: &Response, invite: &Request) -> bool {
    let branch = |via: &rsip::headers::Via| via.typed().ok().and_then(|via| via.branch().cloned());
    let same_branch = match (response.via_header(), invite.via_header()) {
        (Ok(theirs), Ok(ours)) => branch(theirs) == branch(ours),
        _ => false,
    };
    let call_id = |headers: Result<&rsip::headers::CallId, rsip::Error>| headers.ok().map(ToString::to_string);
    same_branch && call_id(response.call_id_header()) == call_id(invite.call_id_header())
}

pub(super) fn read(response: &Response) -> Told {
    let code = response.status_code.code();
    // "…the UAS MUST add a tag to the To header field in the response" (RFC 3261 §8.2.6.2, all but 100).
    let to = response.to_header().ok().and_then(|to| to.typed().ok());
    if to.is_none_or(|to| to.tag().is_none()) {
        return Told::Unreadable(format!("{code} without a tag in To"));
    }
    if code != 302 {
        let cause = response.headers.iter().find_map(|header| match header {
            Header::Other(name, value) if name.eq_ignore_ascii_case("Reason") => {
                let (_, rest) = value.trim().strip_prefix("Q.850")?.split_once("cause=")?;
                rest.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok()
            }
            _ => None,
        });
        return Told::Final { code, cause };
    }
    let contact = match response.contact_header().map(|contact| contact.typed()) {
        Ok(Ok(contact)) => contact.uri,
        Ok(Err(error)) | Err(error) => return Told::Unreadable(format!("302 with a Contact that is none: {error}")),
    };
    let address = contact.host_with_port.to_string();
    match address.parse().or_else(|_| format!("{address}:5060").parse()) {
        Ok(to) => Told::Redirect { user: contact.user().unwrap_or_default().to_owned(), to },
        Err(_) => Told::Unreadable(format!("302 to {address}, which is no address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Told {
        read(&Response::try_from(text.replace('\n', "\r\n")).unwrap())
    }

    #[test]
    fn an_answer_is_read_as_a_pbx_reads_it() {
        const HEAD: &str = "Via: SIP/2.0/UDP 127.0.0.33:5060;branch=z9hG4bK1\nFrom: <sip:a@b>;tag=1\nTo: <sip:c@d>;tag=2\n\
                            Call-ID: x\nCSeq: 1 INVITE\n";
        let redirect = format!(
            "SIP/2.0 302 Moved Temporarily\n{HEAD}Contact: <sip:IMSI001010000000001@127.0.0.17:5062>\nContent-Length: 0\n\n"
        );
        let to = "127.0.0.17:5062".parse().unwrap();
        assert_eq!(told(&redirect), Told::Redirect { user: "IMSI001010000000001".into(), to });
        let away = format!("SIP/2.0 480 Away\n{HEAD}Reason: Q.850;cause=20\nContent-Length: 0\n\n");
        assert_eq!(told(&away), Told::Final { code: 480, cause: Some(20) });
        assert_eq!(told(&away.replace("Reason: Q.850;cause=20\n", "")), Told::Final { code: 480, cause: None });
        assert!(matches!(told(&away.replace(";tag=2", "")), Told::Unreadable(_)));
        assert!(matches!(told(&redirect.replace("Contact", "X-Contact")), Told::Unreadable(_)));
    }

    /// The box's own parser reads what this other writer writes.
    #[test]
    fn the_invite_and_its_ack_are_well_formed() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let to = server.local_addr().unwrap();
        let mut pbx = Pbx::new("127.0.0.1:0".parse().unwrap()).unwrap();
        let own = pbx.address();
        let caller = std::thread::spawn(move || pbx.call(to, "sip:+9997000003@gsm.example"));
        let mut buffer = [0; 2000];
        let (len, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(from, own);
        let invite = crate::sip::parse::parse(&buffer[..len]).unwrap();
        assert_eq!((invite.method(), invite.uri()), (Some("INVITE"), Some("sip:+9997000003@gsm.example")));
        let branch = invite.via().unwrap().branch.map(str::to_owned);
        let answer = crate::sip::write::Writer::response_to(&invite, 404, "Not Found", Some("no"), None)
            .header("Reason", "Q.850;cause=1")
            .finish();
        server.send_to(&answer, from).unwrap();
        assert_eq!(caller.join().unwrap(), Told::Final { code: 404, cause: Some(1) });
        let (len, _) = server.recv_from(&mut buffer).unwrap();
        let ack = crate::sip::parse::parse(&buffer[..len]).unwrap();
        assert_eq!((ack.method(), ack.cseq()), (Some("ACK"), (1, "ACK")));
        assert_eq!(ack.via().unwrap().branch.map(str::to_owned), branch);
        assert_eq!(ack.to().unwrap().tag(), Some("no"));
    }
}
