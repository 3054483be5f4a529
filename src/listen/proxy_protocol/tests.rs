//! Headers as load balancers write them, in pieces, and as they should not be.

use super::*;
use crate::config::types::At;
use proxy_header::ProxiedAddress;

fn network(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn header(read: Read) -> Said {
    match read {
        Read::Header(said) => *said,
        other => panic!("{other:?}"),
    }
}

const V6: &str = "[2001:db8::1]:4000";

fn version_2_of(client: &str, tlvs: Vec<Tlv<'_>>) -> Vec<u8> {
    let client: SocketAddr = client.parse().unwrap();
    let own = if client.is_ipv4() { "10.0.0.9:443" } else { "[2001:db8::9]:443" };
    let mut bytes = Vec::new();
    ProxyHeader::with_tlvs(Some(ProxiedAddress::stream(client, own.parse().unwrap())), tlvs).encode_v2(&mut bytes).unwrap();
    bytes
}

fn local() -> Vec<u8> {
    let mut bytes = Vec::new();
    ProxyHeader::with_local().encode_v2(&mut bytes).unwrap();
    bytes
}

fn ssl(verify: u32, cn: &'static str) -> Tlv<'static> {
    let mut info = SslInfo::new(true, true, false, verify);
    info.append_tlv(Tlv::SslVersion("TLSv1.3".into()));
    info.append_tlv(Tlv::SslCipher("TLS_AES_128_GCM_SHA256".into()));
    info.append_tlv(Tlv::SslCn(cn.into()));
    Tlv::Ssl(info)
}

#[test]
fn every_kind_of_header_is_read_whole_and_nothing_behind_it() {
    let unknown_family = [V2, b"\x21\x00\x00\x00"].concat();
    let unix = [V2, b"\x21\x31\x00\xd8", &[b'/'; 216]].concat();
    for (bytes, client) in [
        (b"PROXY TCP4 192.0.2.7 10.0.0.9 4000 443\r\n".to_vec(), Some("192.0.2.7:4000")),
        (b"PROXY TCP6 2001:db8::1 2001:db8::9 4000 443\r\n".to_vec(), Some(V6)),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), None),
        (version_2_of("192.0.2.7:4000", vec![]), Some("192.0.2.7:4000")),
        (version_2_of(V6, vec![Tlv::Noop(9), Tlv::UniqueId(b"one"[..].into()), Tlv::Custom(0xea, b"vpce"[..].into())]), Some(V6)),
        (local(), None),
        (unknown_family, None),
        (unix, None),
    ] {
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), Read::Incomplete, "{:?}", String::from_utf8_lossy(&bytes[..cut]));
        }
        for more in ["", "GET / HTTP/1.1\r\n", "\x16\x03\x01", "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n"] {
            let said = header(read(&[&bytes[..], more.as_bytes()].concat()));
            assert_eq!((said.length, said.client), (bytes.len(), client.map(|client| client.parse().unwrap())));
            assert_eq!(said.tls, None);
        }
    }
}

#[test]
fn what_begins_like_no_header_is_none_and_what_begins_like_one_must_be_one() {
    for other in ["GET / HTTP/1.1\r\n", "POST / HTTP/1.1", "PROXYING", "\x16\x03\x01", "\r\nGET /", "\r\n\r\nGET", "\0"] {
        assert_eq!(read(other.as_bytes()), Read::NoHeader, "{other:?}");
    }
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(200));
    let datagram = [V2, b"\x21\x12\x00\x0c", &[1; 12]].concat();
    let version_3 = [V2, b"\x31\x11\x00\x0c", &[1; 12]].concat();
    let command = [V2, b"\x22\x11\x00\x0c", &[1; 12]].concat();
    let short = [V2, b"\x21\x11\x00\x0b", &[1; 11]].concat();
    let endless = [V2, b"\x21\x11\xff\xff"].concat();
    let broken_tlv = [V2, b"\x21\x11\x00\x0e", &[1; 12], b"\x01\x00"].concat();
    for bytes in [
        b"PROXY / HTTP/1.1\r\nHost: a\r\n\r\n",
        &b"PROXY TCP4 192.0.2.7 10.0.0.9 4000 +443\r\n"[..],
        format!("PROXY TCP4 192.0.2.7 10.0.0.9 4000 443{}", "\n".repeat(90)).as_bytes(),
        b"PROXY TCP4 2001:db8::1 2001:db8::9 4000 443\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.9 4000 70000\r\n",
        long.as_bytes(),
        &datagram,
        &version_3,
        &command,
        &short,
        &endless,
        &broken_tlv,
        &version_2_of(V6, vec![ssl(0, "a\r\nx-user: root")]),
    ] {
        assert_eq!(read(bytes), Read::Invalid, "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn what_a_load_balancer_tells_of_tls_are_the_same_facts_as_those_of_our_own() {
    let tls = header(read(&version_2_of(V6, vec![Tlv::Authority("Shop.Example".into()), ssl(0, "orders, eu")]))).tls.unwrap();
    assert_eq!((&*tls.version, &*tls.cipher, tls.server_name.as_deref()), ("1.3", "TLS_AES_128_GCM_SHA256", Some("shop.example")));
    let client = tls.client.unwrap();
    assert_eq!((client.subject.as_str(), client.common_name.as_deref()), ("CN=orders\\, eu", Some("orders, eu")));
    // A certificate that was not verified is nobody's.
    assert_eq!(header(read(&version_2_of(V6, vec![ssl(1, "orders")]))).tls.unwrap().client, None);
    // Without the flag the client's connection was plain, whatever else is said.
    let plain = header(read(&version_2_of(V6, vec![Tlv::Ssl(SslInfo::new(false, true, true, 0)), Tlv::Authority("a".into())])));
    assert_eq!(plain.tls, None);
    let mut of_itself = version_2_of(V6, vec![ssl(0, "orders")]);
    of_itself[12] = 0x20;
    assert_eq!(header(read(&of_itself)), Said { length: of_itself.len(), client: None, tls: None });
}

#[test]
fn who_is_not_trusted_may_not_speak_for_others_and_who_must_may_not_be_silent() {
    let header = || read(b"PROXY UNKNOWN\r\n");
    let (balancer, stranger) = ("[::ffff:10.1.2.3]:9".parse().unwrap(), "192.0.2.1:9".parse().unwrap());
    for is_required in [true, false] {
        let how = ProxyProtocol { trusted: vec![network("10.0.0.0/8")], is_required };
        assert!(how.judge(balancer, header()).unwrap().is_some());
        assert_eq!(how.judge(balancer, Read::Invalid), Err(Dropped::ProxyInvalid));
        assert_eq!(how.judge(stranger, header()), Err(Dropped::ProxyUntrusted));
        assert_eq!(how.judge(stranger, Read::Invalid), Err(Dropped::ProxyUntrusted));
        let missing = |reason| if is_required { Err(reason) } else { Ok(None) };
        assert_eq!(how.judge(balancer, Read::NoHeader), missing(Dropped::ProxyMissing));
        assert_eq!(how.judge(stranger, Read::NoHeader), missing(Dropped::ProxyUntrusted));
    }
}

#[test]
fn each_network_is_written_once_and_there_is_one() {
    let at = |value: &str| {
        let source = Arc::new(crate::config::diagnostic::Source::new("t.yaml", ""));
        let place = crate::config::diagnostic::Place { source, line: 1, column: 1, width: 1 };
        At { value: Network(value.parse().unwrap()), place }
    };
    let place = at("10.0.0.0/8").place;
    let compile = |networks: Vec<At<Network>>| {
        let mut mistakes = Vec::new();
        let settings = ProxyProtocolSettings { trusted: At { value: networks, place: place.clone() }, required: None };
        let compiled = ProxyProtocol::compile(Some(&settings), &mut mistakes).unwrap();
        (compiled, mistakes.iter().map(|mistake| mistake.code).collect::<Vec<_>>())
    };
    let (compiled, mistakes) = compile(vec![at("10.0.0.0/8"), at("fd00::/8")]);
    assert!(compiled.is_required && compiled.trusts("[fd00::1]:1".parse().unwrap()) && mistakes.is_empty());
    assert_eq!(compile(vec![]).1, ["empty-list"]);
    assert_eq!(compile(vec![at("10.0.0.0/8"), at("10.1.0.0/16")]).1, ["proxy-repeated"]);
}
