//! What base stations, SIP phones and trunks say, word for word (an OpenBTS 5.0 as it is on the wire), and what is read of answers.

use std::net::SocketAddr;

use encamp::ident::Imsi;
use encamp::sip::parse::{Message, parse};

pub struct Register<'a> {
    pub imsi: Imsi,
    pub station: SocketAddr,
    pub front: SocketAddr,
    pub call_id: &'a str,
    pub cseq: u32,
    pub branch: u64,
    pub contact: &'a str,
    pub expires_s: u32,
    pub authorization: Option<String>,
    pub soft: bool,
}

/// Two blanks after `To:` and `From:`, one Call-ID for all phones of a base station, no Expires header ever.
pub fn register(ask: &Register<'_>) -> Vec<u8> {
    let contact = if ask.contact == "*" { "*".to_owned() } else { format!("<{}>", ask.contact) };
    let Register { imsi, station, front, call_id, cseq, branch, expires_s, .. } = ask;
    let authorization = ask.authorization.as_ref().map_or(String::new(), |text| format!("Authorization: {text}\r\n"));
    let text = if ask.soft {
        format!(
            "REGISTER sip:{host} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {station};branch=z9hG4bK{branch:x};rport\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:IMSI{imsi}@{host}>;tag={branch:x}\r\n\
             To: <sip:IMSI{imsi}@{host}>\r\n\
             Call-ID: {call_id}\r\n\
             CSeq: {cseq} REGISTER\r\n\
             Contact: {contact}\r\n\
             Expires: {expires_s}\r\n\
             {authorization}User-Agent: a soft phone\r\n\
             Content-Length: 0\r\n\r\n",
            host = front.ip(),
        )
    } else {
        format!(
            "REGISTER sip:{host} SIP/2.0\r\n\
             To:  <sip:IMSI{imsi}@{front}>\r\n\
             From:  <sip:IMSI{imsi}@{front}>;tag=OBTS{branch:016x}\r\n\
             Via: SIP/2.0/UDP {station};branch=z9hG4bKOBTS{branch:016x}\r\n\
             Call-ID: {call_id}\r\n\
             CSeq: {cseq} REGISTER\r\n\
             Contact: {contact};expires={expires_s}\r\n\
             {authorization}Max-Forwards: 70\r\n\
             P-Preferred-Identity: <sip:IMSI{imsi}@{host}>\r\n\
             P-PHY-Info: OpenBTS; IMSI=no-MMUser TA=0 TE=0.000000 UpRSSI=-65.000000 TxPwr=33 DnRSSIdBm=-71 time=1795265024.340\r\n\
             P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp=0010103e8000a\r\n\
             User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28\r\n\
             Content-Length: 0\r\n\r\n",
            host = front.ip(),
        )
    };
    text.into_bytes()
}

pub fn invite(number: &str, trunk: SocketAddr, front: SocketAddr, call_id: &str) -> Vec<u8> {
    let text = format!(
        "INVITE sip:{number}@{front} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {trunk};branch=z9hG4bK{call_id}\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:100@{trunk}>;tag=t{call_id}\r\n\
         To: <sip:{number}@{front}>\r\n\
         Call-ID: {call_id}\r\n\
         CSeq: 1 INVITE\r\n\
         Contact: <sip:100@{trunk}>\r\n\
         Content-Length: 0\r\n\r\n",
    );
    text.into_bytes()
}

/// What the simulator reads of any message.
#[derive(Clone, Debug)]
pub struct Read {
    /// 0 for a request.
    pub code: u16,
    pub method: String,
    pub imsi: Option<Imsi>,
    pub call_id: String,
    pub cseq: u32,
    pub nonce: Option<String>,
    pub has_challenge: bool,
    pub has_authorization: bool,
    pub contact: Option<String>,
    /// It is signed: spoken between nodes.
    pub stamped: bool,
    pub has_record: bool,
    pub is_older: bool,
}

pub fn read(bytes: &[u8]) -> Option<Read> {
    let message: Message<'_> = parse(bytes).ok()?;
    let header = |name: &str| message.header_named(name);
    let to = message.to().ok().and_then(|to| to.uri().ok()).and_then(|uri| uri.user);
    let challenge = header("WWW-Authenticate");
    let nonce = challenge.or(header("Authorization")).and_then(|value| value.split_once("nonce="));
    let nonce = nonce.map(|(_, rest)| rest.trim_matches('"').chars().take_while(char::is_ascii_hexdigit).collect());
    let contact = header("Contact").and_then(|value| value.split_once('<')?.1.split_once('>'));
    Some(Read {
        code: message.code().unwrap_or(0),
        method: message.cseq().1.to_owned(),
        imsi: to.and_then(|user| Imsi::parse(user).ok()),
        call_id: message.call_id().to_owned(),
        cseq: message.cseq().0,
        nonce,
        has_challenge: challenge.is_some(),
        has_authorization: header("Authorization").is_some(),
        contact: contact.map(|(uri, _)| uri.to_owned()),
        stamped: header("Encamp").is_some(),
        has_record: header("Encamp-Record").is_some(),
        is_older: header("Encamp").is_some_and(|value| value.contains(";result=older")),
    })
}
