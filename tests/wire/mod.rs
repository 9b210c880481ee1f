//! Messages as base stations send them, word for word, and a REGISTER of YateBTS put together from its sources.
//!
//! Lines end with LF here for the eye; [`message`] gives them the CRLF they have on the wire.

#![allow(dead_code, reason = "each test crate uses some of them")]

pub const OPENBTS_REGISTER: &str = "\
REGISTER sip:127.0.0.1 SIP/2.0
To:  <sip:IMSI001010000000001@127.0.0.1:5064>
From:  <sip:IMSI001010000000001@127.0.0.1:5064>;tag=OBTSmedozorenxebtuzb
Via: SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKOBTSnsjuyybeaexeivcf
Call-ID: 9200ac34758d0f49
CSeq: 131736 REGISTER
Contact: <sip:IMSI001010000000001@127.0.0.1:5062>;expires=5400
Max-Forwards: 70
P-Preferred-Identity: <sip:IMSI001010000000001@127.0.0.1>
P-PHY-Info: OpenBTS; IMSI=no-MMUser TA=0 TE=0.000000 UpRSSI=-65.000000 TxPwr=33 DnRSSIdBm=-71 time=1795265024.340
P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp=0010103e8000a
User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28
Content-Length: 0

";

pub const OPENBTS_SECOND_LEG: &str = "\
REGISTER sip:127.0.0.1 SIP/2.0
To:  <sip:IMSI001010000000001@127.0.0.1:5064>
From:  <sip:IMSI001010000000001@127.0.0.1:5064>;tag=OBTSxovhqaeblwuixwqp
Via: SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKOBTSqpbneyzdlhwxyvfi
Call-ID: 9200ac34758d0f49
CSeq: 131737 REGISTER
Contact: <sip:IMSI001010000000001@127.0.0.1:5062>;expires=5400
Authorization: Digest nonce=\"4f3710c525946fc37dbdcc865b155779\", uri=\"001010000000001\", response=\"666e2f7a\"
Max-Forwards: 70
P-Preferred-Identity: <sip:IMSI001010000000001@127.0.0.1>
P-PHY-Info: OpenBTS; IMSI=no-MMUser TA=0 TE=0.000000 UpRSSI=-65.000000 TxPwr=33 DnRSSIdBm=-71 time=1795265024.940
P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp=0010103e8000a
User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28
Content-Length: 0

";

pub const OPENBTS_4_REGISTER: &str = "\
REGISTER sip:127.0.0.1 SIP/2.0
Via: SIP/2.0/UDP 127.0.0.1:5062;branch
From: IMSI001010002220002 <sip:IMSI001010002220002@127.0.0.1>;tag=tagxwojprsxydjpfaqf
To: IMSI001010002220002 <sip:IMSI001010002220002@127.0.0.1>
Call-ID: 1543864025@127.0.0.1
CSeq: 244 REGISTER
Contact: <sip:IMSI001010002220002@127.0.0.1:5062>;expires=5400
Authorization: Digest, nonce=7fa68566fa8af919c926247b1b2a04c7, uri=001010002220002, response=a4b2f099
User-Agent: OpenBTS 4.0TRUNK Build Date May 25 2013
Max-Forwards: 70
P-PHY-Info: OpenBTS; TA=0 TE=0.122070 UpRSSI=-36.000000 TxPwr=17 DnRSSIdBm=-77
P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp=0010103ef000a
P-Preferred-Identity: <sip:IMSI001010002220002@127.0.0.1:5060>
Content-Length: 0

";

pub const OPENBTS_INVITE: &str = "\
INVITE sip:404@127.0.0.1:5060 SIP/2.0
To:  <sip:404@127.0.0.1>
From:  <sip:IMSI001010000000001@127.0.0.1:5062>;tag=OBTSsocshaiikpzzmxoc
Via: SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKOBTSgvweaomrrstmarme
Call-ID: 924a070e7621ca
CSeq: 131736 INVITE
Contact: <sip:IMSI001010000000001@127.0.0.1:5062>;expires=3600
Max-Forwards: 70
P-Preferred-Identity: <sip:IMSI001010000000001@127.0.0.1>
P-Associated-URI: <tel:2101>
P-PHY-Info: OpenBTS; IMSI=no-MMUser TA=0 TE=0.000000 UpRSSI=-65.000000 TxPwr=33 DnRSSIdBm=-71 time=1795265097.613
P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp=0010103e8000a
User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28
Content-Type: application/sdp
Content-Length: 135

v=0
o=IMSI001010000000001 0 0 IN IP4 127.0.0.1
s=Talk Time
t=0 0
m=audio 16494 RTP/AVP 3
c=IN IP4 127.0.0.1
a=rtpmap:3 GSM/8000
";

pub const OPENBTS_MESSAGE: &str = "\
MESSAGE sip:smsc@127.0.0.1:5063 SIP/2.0
To:  <sip:smsc@127.0.0.1>
From:  <sip:IMSI001010000000001@127.0.0.1:5062>;tag=OBTSvzgnaalnutwucdjc
Via: SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKOBTSwwzwouywbrzggksh
Call-ID: 927d512c1b2c876a
CSeq: 131737 MESSAGE
Contact: <sip:IMSI001010000000001@127.0.0.1:5062>;expires=3600
Max-Forwards: 70
P-Preferred-Identity: <sip:IMSI001010000000001@127.0.0.1>
User-Agent: OpenBTS 5.0-master Build Date 2026-11-21T11:58:28
Content-Type: application/vnd.3gpp.sms
Content-Length: 52

002a000381000012012a0481121000000ac8329bfd06cdcb6c33";

pub const OPENBTS_480: &str = "\
SIP/2.0 480 No_Paging_Response
To:  <sip:IMSI001010000000001@127.0.0.1>;tag=OBTSfddyqelvoeyzgxgf
From:  <sip:2102@127.0.0.1>;tag=srvbcf48c
Via: SIP/2.0/UDP 127.0.0.1:5063;branch=1;received=smqueue@Range.com,SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKOBTSww
Call-ID: 924a070e7621ca
CSeq: 131736 INVITE
Contact: <sip:IMSI001010000000001@127.0.0.1:5062>;expires=3600
Reason: Q.850;cause=27 ;text=\"No_Paging_Response\"
Content-Length: 0

";

pub const SIPAUTHSERVE_401: &str = "\
SIP/2.0 401 Unauthorized
Via: SIP/2.0/UDP localhost:5064;branch=1;received=string_address@foo.bar
Via: SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKOBTSnsjuyybeaexeivcf
From: <sip:IMSI001010000000001@127.0.0.1:5064>;tag=OBTSmedozorenxebtuzb
To: <sip:IMSI001010000000001@127.0.0.1:5064>
Call-ID: 9200ac34758d0f49
CSeq: 131736 REGISTER
Contact: <sip:IMSI001010000000001@127.0.0.1:5062>;expires=5400
WWW-Authenticate: Digest  nonce=4f3710c525946fc37dbdcc865b155779
Max-forwards: 70
Content-Length: 0

";

pub const SMQUEUE_MESSAGE: &str = "\
MESSAGE sip:IMSI001010000000002@127.0.0.1:5062 SIP/2.0
Via: SIP/2.0/UDP 127.0.0.1:5063;branch=1;received=smqueue@Range.com
Via: SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKOBTSyrbuwoybfbdjansl
From: 2101 <sip:2101@127.0.0.1:5062>;tag=OBTSrugnphkhjmceirzm
To: 2102 <sip:2102@127.0.0.1>
Call-ID: 9Q/XL
CSeq: 666291 MESSAGE
Contact: <sip:IMSI001010000000001@127.0.0.1:5062>;expires=3600
Content-Type: application/vnd.3gpp.sms
Max-forwards: 70
Content-Length:    62

01A203A1000000170404A1121000006211122100010009C8329BFD0609DF62";

pub const YATEBTS_REGISTER: &str = "\
REGISTER sip:192.0.2.5:5060 SIP/2.0
Via: SIP/2.0/UDP 192.0.2.11:5060;rport;branch=z9hG4bK1724513498
From: <sip:IMSI226030182676743@192.0.2.5>;tag=1270435186
To: <sip:IMSI226030182676743@192.0.2.5>
Call-ID: yatebts-1478272431-1087@192.0.2.11
CSeq: 21 REGISTER
Contact: <sip:IMSI226030182676743@192.0.2.11:5060>; expires=3600; +sip.instance=\"<urn:gsma:imei:35469503-356129-0>\"; +g.3gpp.smsip
Authorization: Digest realm=\"192.0.2.5\", uri=\"226030182676743\", nonce=\"q7BnCSV3TEuDJbRxQ+XyMg==\", response=\"92a3d2b1\", algorithm=AKAv1-MD5
Supported: auth-gsm,auth-umts,reg-tmsi
P-Access-Network-Info: 3GPP-GERAN; cgi-3gpp=2260303e8000a; gstn-location=\"hill, north\"
P-PHY-Info: YateBTS; TA=1 TE=0.000 UpRSSI=-45 TxPwr=33 DnRSSIdBm=-70 time=1478272431.105
User-Agent: YateBTS/6.1.1
Max-Forwards: 20
Content-Length: 0

";

pub const ALL: [&str; 9] = [
    OPENBTS_REGISTER,
    OPENBTS_SECOND_LEG,
    OPENBTS_4_REGISTER,
    OPENBTS_INVITE,
    OPENBTS_MESSAGE,
    OPENBTS_480,
    SIPAUTHSERVE_401,
    SMQUEUE_MESSAGE,
    YATEBTS_REGISTER,
];

/// As it is on the wire.
pub fn message(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}
