//! What an OpenBTS 5.0 says in a call, word for word as it is on the wire, and what it reads of others.

use std::net::SocketAddr;

use encamp::ident::Imsi;
use encamp::sip::header::{Uri, Via};
use encamp::sip::parse::{Message, StartLine};

/// A phone that calls: what all requests of its dialog have in common.
#[derive(Clone, Debug)]
pub struct Calling {
    pub imsi: Imsi,
    pub cell: SocketAddr,
    pub proxy: SocketAddr,
    pub dialled: String,
    pub call_id: String,
    pub tag: String,
    pub branch: String,
    pub cseq: u32,
    pub sdp: Vec<u8>,
}

/// `c=` after `m=`, GSM full rate only.
pub fn sdp(imsi: Imsi, cell: SocketAddr, port: u16, what: u64) -> Vec<u8> {
    let host = cell.ip();
    format!(
        "v=0\r\no=IMSI{imsi} {what} 0 IN IP4 {host}\r\ns=Talk Time\r\nt=0 0\r\nm=audio {port} RTP/AVP 3\r\n\
         c=IN IP4 {host}\r\na=rtpmap:3 GSM/8000\r\n"
    )
    .into_bytes()
}

fn with_body(mut text: String, kind: &str, body: &[u8]) -> Vec<u8> {
    if body.is_empty() {
        text.push_str("Content-Length: 0\r\n\r\n");
        return text.into_bytes();
    }
    text.push_str(&format!("Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len()));
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

impl Calling {
    /// To's host is the base station's own.
    pub fn invite(&self) -> Vec<u8> {
        let Calling { imsi, cell, proxy, dialled, call_id, tag, branch, cseq, sdp } = self;
        let host = cell.ip();
        let text = format!(
            "INVITE sip:{dialled}@{proxy} SIP/2.0\r\n\
             To:  <sip:{dialled}@{host}>\r\n\
             From:  <sip:IMSI{imsi}@{cell}>;tag={tag}\r\n\
             Via: SIP/2.0/UDP {cell};branch={branch}\r\n\
             Call-ID: {call_id}\r\n\
             CSeq: {cseq} INVITE\r\n\
             Contact: <sip:IMSI{imsi}@{cell}>;expires=3600\r\n\
             Max-Forwards: 70\r\n\
             P-Preferred-Identity: <sip:IMSI{imsi}@{host}>\r\n\
             P-PHY-Info: OpenBTS; IMSI=no-MMUser TA=0 TE=0.000000 UpRSSI=-65.000000 TxPwr=33 DnRSSIdBm=-71 time=1795265097.613\r\n\
             P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp=0010103e8000a\r\n\
             User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28\r\n"
        );
        with_body(text, "application/sdp", sdp)
    }

    /// Of a final answer; the INVITE's branch and Request-URI, to a 200 as well, and to wherever the answer's Contact said.
    pub fn ack(&self, their_tag: &str) -> Vec<u8> {
        self.request("ACK", &format!("sip:{}@{}", self.dialled, self.proxy), self.cseq, &self.branch, their_tag, "")
    }

    /// Malformed: a new branch, the INVITE's number + 1, and To has a tag.
    pub fn cancel(&self, branch: &str, their_tag: &str) -> Vec<u8> {
        let uri = format!("sip:{}@{}", self.dialled, self.proxy);
        let reason = "Reason: Q.850;cause=16 ;text=\"Normal_Call_Clearing\"\r\n";
        self.request("CANCEL", &uri, self.cseq + 1, branch, their_tag, reason)
    }

    /// The dialled user at the Contact's host and port.
    pub fn bye(&self, branch: &str, their_tag: &str, peer: SocketAddr, cseq: u32) -> Vec<u8> {
        let reason = "Reason: Q.850;cause=16 ;text=\"Normal_Call_Clearing\"\r\n";
        self.request("BYE", &format!("sip:{}@{peer}", self.dialled), cseq, branch, their_tag, reason)
    }

    fn request(&self, method: &str, uri: &str, cseq: u32, branch: &str, their_tag: &str, more: &str) -> Vec<u8> {
        let Calling { imsi, cell, dialled, call_id, tag, .. } = self;
        let host = cell.ip();
        let to_tag = if their_tag.is_empty() { String::new() } else { format!(";tag={their_tag}") };
        format!(
            "{method} {uri} SIP/2.0\r\n\
             To: <sip:{dialled}@{host}>{to_tag}\r\n\
             From: <sip:IMSI{imsi}@{cell}>;tag={tag}\r\n\
             Via: SIP/2.0/UDP {cell};branch={branch}\r\n\
             Call-ID: {call_id}\r\n\
             CSeq: {cseq} {method}\r\n\
             {more}Max-Forwards: 70\r\n\
             User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28\r\n\
             Content-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }
}

/// An answer of a base station: Vias folded into one line, a tag of its own where `tag` is not empty.
pub fn answer(request: &Message<'_>, code: u16, phrase: &str, tag: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let header = |name: &str| request.header_named(name).unwrap_or_default().to_owned();
    let mut to = header("To");
    if !tag.is_empty() && !to.contains(";tag=") {
        to.push_str(&format!(";tag={tag}"));
    }
    let vias: Vec<&str> = request.vias().collect();
    let text = format!(
        "SIP/2.0 {code} {phrase}\r\nTo: {to}\r\nFrom: {}\r\nVia: {}\r\nCall-ID: {}\r\nCSeq: {}\r\n{more}",
        header("From"),
        vias.join(","),
        header("Call-ID"),
        header("CSeq"),
    );
    with_body(text, "application/sdp", body)
}

/// BYE of the called side: to the top Via's sent-by of the INVITE.
pub fn bye_of_called(invite: &Message<'_>, tag: &str, cell: SocketAddr, branch: &str, cseq: u32) -> Vec<u8> {
    let header = |name: &str| invite.header_named(name).unwrap_or_default();
    let target = header("Contact").trim_start_matches('<').split('>').next().unwrap_or_default();
    format!(
        "BYE {target} SIP/2.0\r\n\
         To: {}\r\n\
         From: {};tag={tag}\r\n\
         Via: SIP/2.0/UDP {cell};branch={branch}\r\n\
         Call-ID: {}\r\n\
         CSeq: {cseq} BYE\r\n\
         Reason: Q.850;cause=16 ;text=\"Normal_Call_Clearing\"\r\n\
         Max-Forwards: 70\r\n\
         User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28\r\n\
         Content-Length: 0\r\n\r\n",
        header("From"),
        header("To"),
        header("Call-ID"),
    )
    .into_bytes()
}

/// Where answers and the called side's BYE go: "sent-by of the top Via, not the source address".
pub fn sent_by(message: &Message<'_>) -> Option<SocketAddr> {
    let via: Via<'_> = message.via().ok()?;
    Some(SocketAddr::new(via.host.parse().ok()?, via.port.unwrap_or(5060)))
}

/// The host and port of its Contact.
pub fn contact(message: &Message<'_>) -> Option<SocketAddr> {
    let uri = message.header_named("Contact")?.split_once('<')?.1.split_once('>')?.0;
    let uri = Uri::parse(uri).ok()?;
    Some(SocketAddr::new(uri.host.parse().ok()?, uri.port.unwrap_or(5060)))
}

pub fn to_tag(message: &Message<'_>) -> String {
    message.to().ok().and_then(|to| to.tag()).unwrap_or_default().to_owned()
}

pub fn phrase<'a>(message: &Message<'a>) -> &'a str {
    match message.start {
        StartLine::Response { reason, .. } => reason,
        StartLine::Request { .. } => "",
    }
}

/// Code, phrase and Reason: what decides the cause at the phone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Final {
    pub code: u16,
    pub phrase: String,
    pub reason: String,
}

impl Final {
    pub fn of(message: &Message<'_>) -> Final {
        Final {
            code: message.code().unwrap_or_default(),
            phrase: phrase(message).to_owned(),
            reason: message.header_named("Reason").unwrap_or_default().to_owned(),
        }
    }

    pub fn cause(&self) -> u8 {
        let cause = self.reason.split(';').find_map(|part| part.trim().strip_prefix("cause="));
        cause.and_then(|cause| cause.trim().parse().ok()).unwrap_or(0)
    }
}

pub fn describe(message: &Message<'_>) -> String {
    let (number, method) = message.cseq();
    let what = match message.start {
        StartLine::Request { method, uri } => format!("{method} {uri}"),
        StartLine::Response { code, reason } => format!("{code} {reason} to {method}"),
    };
    format!("{what} [{} {number}]", message.call_id())
}
